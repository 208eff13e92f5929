// Package consumertest holds drivers to the contract of package consumers ([Run]), and has what
// tests of subscribers need: a partitioned log in memory that can be disturbed ([Memory]), and a
// group with its logs in memory ([Logs]).
package consumertest

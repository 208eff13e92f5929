//go:build !race

package pubsub_test

const google = true

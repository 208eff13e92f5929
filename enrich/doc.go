// Package enrich adds what is known elsewhere to events: a user's tier, an airport's city.
package enrich

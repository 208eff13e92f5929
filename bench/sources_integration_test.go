//go:build integration

package main

import "testing"

// Event Hubs too, whose server is a program of node.
func TestIntegrationSources(t *testing.T) { wantSources(t, "eventhubs sdk") }

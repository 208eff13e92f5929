//go:build integration

package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The demo kills its worker on other sources too, and is exact.
func TestIntegrationDemo(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "millstream")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for source, says := range map[string][]string{
		"eventhubs": {"A stand-in for Event Hubs", "--source 'eventhubs://demo/clicks?endpoint=127.0.0.1:"}, // needs node
		"pubsub":    {"An embedded Pub/Sub", "--source 'pubsub://demo/clicks-0,clicks-1,clicks-2,clicks-3?endpoint=127.0.0.1:"},
	} {
		t.Run(source, func(t *testing.T) {
			t.Parallel() // on Pub/Sub it lasts more than a minute, and waits most of it
			cmd := exec.Command(binary, "demo", "--source", source, "--for", "6s", "--dir", filepath.Join(t.TempDir(), "demo"))
			cmd.Env = environment(nil)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, text := range append(says, "kill -9", "it took over", "equals the exact answer: yes") {
				if !strings.Contains(string(out), text) {
					t.Errorf("does not say %q:\n%s", text, out)
				}
			}
		})
	}
}

//go:build integration

package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The demo on Event Hubs kills its worker too, and is exact. It needs node.
func TestIntegrationDemoEventHubs(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "millstream")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(binary, "demo", "--source", "eventhubs", "--for", "6s", "--dir", filepath.Join(t.TempDir(), "demo"))
	cmd.Env = environment(nil)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, text := range []string{"A stand-in for Event Hubs", "--source 'eventhubs://demo/clicks?endpoint=127.0.0.1:", "kill -9", "it took over", "equals the exact answer: yes"} {
		if !strings.Contains(string(out), text) {
			t.Errorf("does not say %q:\n%s", text, out)
		}
	}
}

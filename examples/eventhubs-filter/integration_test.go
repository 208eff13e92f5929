//go:build integration

package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	fake "github.com/millstream/millstream/fakes/eventhubs"
)

// TestIntegrationHub runs both programs on a hub with two partitions, over AMQP with the official client,
// each partition claimed with an owner level.
func TestIntegrationHub(t *testing.T) {
	server, err := fake.Start(t.Context(), fake.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	if err := server.CreateHub("pumps", 2, "filter"); err != nil {
		t.Fatal(err)
	}
	all, kept := lines(t)
	for i, line := range all {
		if err := server.Publish("pumps", fmt.Sprint(i%2), "", []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(kept)
	source := "eventhubs://plant/pumps?consumer-group=filter&endpoint=" + server.Endpoint()
	for pkg, args := range map[string][]string{"../../cmd/millstream": {"run", "--where", "timestamp != nil"}, ".": nil} {
		t.Run(pkg, func(t *testing.T) {
			dir := t.TempDir()
			bin := filepath.Join(dir, "program")
			if out, err := exec.Command("go", "build", "-o", bin, pkg).CombinedOutput(); err != nil {
				t.Fatalf("go build: %v\n%s", err, out)
			}
			program := func(args ...string) (stdout, stderr string) {
				t.Helper()
				var out, errs bytes.Buffer
				cmd := exec.Command(bin, args...)
				cmd.Stdout, cmd.Stderr = &out, &errs
				if err := cmd.Run(); err != nil {
					t.Fatalf("%v: %v\n%s", args, err, &errs)
				}
				return out.String(), errs.String()
			}
			args := append(args, "--source", source, "--until-end", "--sink", "stdout:", "--checkpoint", filepath.Join(dir, "state"), "--http=")
			stdout, stderr := program(args...)
			got := strings.Split(strings.TrimSpace(stdout), "\n")
			slices.Sort(got)
			same(t, got, kept)
			if !strings.Contains(stderr, ledger) {
				t.Errorf("ledger: %s", stderr)
			}
			if len(args) == 0 || args[0] != "run" {
				return
			}
			args[0] = "check"
			stdout, _ = program(args...)
			for _, want := range []string{"eventhubs://plant/pumps: readable, 2 partitions", "Azure Event Hubs Data Receiver on event hub plant/pumps"} {
				if !strings.Contains(stdout, want) {
					t.Errorf("check does not say %q:\n%s", want, stdout)
				}
			}
		})
	}
}

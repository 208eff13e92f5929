package eventhubs

import (
	"strings"
	"testing"
)

// What is missing is said in one line that names the remedy.
func TestRuntimeIsMissing(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(t *testing.T)
		want string
	}{
		"no node": {func(t *testing.T) { t.Setenv("PATH", t.TempDir()) }, "needs node 18 or later, which is not in PATH"},
		"no rhea": {func(t *testing.T) {
			t.Setenv("PATH", fakeTool(t, "node"))
			t.Setenv("MILLSTREAM_RHEA", t.TempDir())
		}, "holds no rhea: want a node_modules folder in which npm has installed rhea@3.0.5"},
		"no npm": {func(t *testing.T) {
			t.Setenv("PATH", fakeTool(t, "node"))
			t.Setenv("MILLSTREAM_RHEA", "")
			t.Setenv("XDG_CACHE_HOME", t.TempDir())
			t.Setenv("HOME", t.TempDir())
		}, "npm is not in PATH: install it, and set MILLSTREAM_RHEA"},
	} {
		t.Run(name, func(t *testing.T) {
			c.set(t)
			s, err := Start(t.Context(), Options{})
			if err == nil {
				s.Close()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q", err)
			}
		})
	}
}

// A program that ends at once is an error, not a wait.
func TestProgramEnds(t *testing.T) {
	t.Setenv("PATH", fakeTool(t, "node")+":/usr/bin:/bin")
	modules := t.TempDir()
	makeFile(t, modules+"/rhea/package.json", "{}")
	t.Setenv("MILLSTREAM_RHEA", modules)
	s, err := Start(t.Context(), Options{})
	if err == nil {
		s.Close()
		t.Fatal("started")
	}
	if !strings.Contains(err.Error(), "the program has ended: exit status 7") {
		t.Error(err)
	}
}

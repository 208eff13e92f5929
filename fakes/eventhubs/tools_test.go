package eventhubs

import (
	"os"
	"path/filepath"
	"testing"
)

// fakeTool makes a folder with a program of that name, which fails.
func fakeTool(t *testing.T, name string) string {
	t.Helper()
	folder := t.TempDir()
	makeFile(t, filepath.Join(folder, name), "#!/bin/sh\nexit 7\n")
	return folder
}

func makeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

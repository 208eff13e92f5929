package service_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The README's Go is inside a program that compiles.
func TestReadmeCompiles(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(readme, -1)
	if len(blocks) != 1 {
		t.Fatalf("%d blocks of Go", len(blocks))
	}
	program := `package main

import (
	"errors"
	"time"

	"` + module + `/service"
	"` + module + `/stream"
	"` + module + `/windows"
)

type Order struct{ Cents int64 }
type Total struct{ Count, Cents int64 }
type Row struct {
	Key    string
	Window stream.Window
	Total
}

func decode(*stream.Record) (e stream.Event[Order], err error) { return e, errors.ErrUnsupported }
func encode(*Row) (r stream.Row, err error)                    { return r, errors.ErrUnsupported }

func main() {
` + string(blocks[0][1]) + `}
`
	dir := t.TempDir()
	source, overlay := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(root, "examples", "readme", "main.go"): source}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{source: []byte(program), overlay: replace} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-overlay", overlay, "-o", os.DevNull, "./examples/readme")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, strings.TrimSpace(string(out)))
	}
}

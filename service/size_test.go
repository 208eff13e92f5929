package service

import "testing"

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"5000": 5000, "5KB": 5000, "5KiB": 5120, "128MiB": 128 << 20, "1GiB": 1 << 30, "": -1, "x": -1, "5X": -1, "-5": -1, "1TiB": -1, "9999999999999GiB": -1, "KB": -1} {
		n, err := parseSize(text)
		if err != nil {
			n = -1
		}
		if n != want {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
}

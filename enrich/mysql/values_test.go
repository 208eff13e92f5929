package mysql

import (
	"bytes"
	"testing"
	"time"
)

func TestValues(t *testing.T) {
	for _, c := range []struct{ database, text, want string }{
		{"UNSIGNED BIGINT", "18446744073709551615", "18446744073709551615"},
		{"DECIMAL", "-0012.50", "-12.50"},
		{"DECIMAL", "000.50", "0.50"},
		{"UNSIGNED INT", "000", "0"},
		{"DOUBLE", "1e+300", "1e+300"},
		{"YEAR", "2026", "2026"},
		{"BIT", "\x01\x00", "256"},
		{"BIT", "123456789", "error"},
		{"VARCHAR", "<a & \"b\">\n\u2028", `"<a & \"b\">\n\u2028"`},
		{"ENUM", "x", `"x"`},
		{"TIME", "-838:59:59", `"-838:59:59"`},
		{"LONGBLOB", "\x00\xff", `"AP8="`},
		{"GEOMETRY", "", `""`},
		{"DATE", "2026-03-01", `"2026-03-01"`},
		{"DATE", "0000-00-00", "null"},
		{"DATE", "2026-00-00", `"2026-00-00"`},
		{"DATETIME", "0000-00-00 00:00:00.000", "null"},
		{"DATETIME", "2026-00-00 00:00:00", `"2026-00-00 00:00:00"`},
		{"DATETIME", "2026-03-01 12:00:00", `"2026-03-01T12:00:00Z"`},
		{"TIMESTAMP", "2026-03-01 12:00:00.5", `"2026-03-01T12:00:00.5Z"`},
	} {
		out := &bytes.Buffer{}
		err := kindOf(c.database).append(out, []byte(c.text))
		if got := out.String(); (err != nil) != (c.want == "error") || err == nil && got != c.want {
			t.Errorf("%s %q: %s, %v, want %s", c.database, c.text, got, err, c.want)
		}
	}
	out := &bytes.Buffer{}
	if err := kindNumber.append(out, nil); err != nil || out.String() != "null" {
		t.Errorf("NULL: %s, %v", out, err)
	}
}

func TestKeyTypes(t *testing.T) {
	for _, c := range []struct {
		columnType, collation, place string
		yes, no                      []string
	}{
		{"int(11)", "", "?", []string{"0", "-1", "9223372036854775807"}, []string{"007", "-0", "+1", "1.0", "1e3", "", " 1", "9223372036854775808"}},
		{"bigint unsigned", "", "?", []string{"0", "18446744073709551615"}, []string{"-1", "007", "18446744073709551616"}},
		{"decimal(10,2)", "", "CAST(? AS DECIMAL(10,2))", []string{"0", "-1", "10", "0.5", "-0.05"}, []string{"", "-", ".", "-0", "00", "01", "1.", ".5", "1.50", "-0.0", "1.2.3", "1e3", "--1", "٣"}},
		{"varchar(20)", "utf8mb4_general_ci", "?", []string{"", "a", " ", "💥", "\x00"}, []string{"\xff"}},
		{"text", "latin1_german1_ci", "CONVERT(? USING latin1) COLLATE latin1_german1_ci", []string{"日"}, []string{"\xff"}},
		{"char(36)", "ascii_bin", "CONVERT(? USING ascii) COLLATE ascii_bin", []string{"a"}, nil},
		{"uuid", "", "?", []string{"A0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}, []string{"", "a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1g", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd3-0a11", "a0eebc9909c0b-4ef8-bb6d-6bb9bd380a11"}},
		{"binary(16)", "", "?", []string{"A0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}, []string{"x"}},
	} {
		k, err := keyTypeOf(describedAs("id", c.columnType, c.collation, true))
		if err != nil || k.place != c.place {
			t.Errorf("%s: %q, %v", c.columnType, k.place, err)
			continue
		}
		for _, text := range c.yes {
			if _, ok := k.value(text); !ok {
				t.Errorf("%s: %q is none", c.columnType, text)
			}
		}
		for _, text := range c.no {
			if _, ok := k.value(text); ok {
				t.Errorf("%s: %q is one", c.columnType, text)
			}
		}
	}
	for _, columnType := range []string{"double", "float", "json", "bit(1)", "date", "datetime(6)", "binary(15)", "enum('a')", "longblob", "year(4)"} {
		if _, err := keyTypeOf(describedAs("id", columnType, "", true)); err == nil {
			t.Errorf("%s is a key", columnType)
		}
	}
	for text, want := range map[string]string{"7.50": "7.5", "7.00": "7", "100": "100", "-0.50": "-0.5", "0.00": "0", "0007.50": "7.5", "000": "0"} {
		if got := shortest(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{"2026-03-01": at, "2026-03-01 00:00:00": at, "2026-03-01 00:00:00.500000": at.Add(time.Second / 2), "0000-00-00": {}, "0000-00-00 00:00:00": {}} {
		if got, err := parseTime([]byte(text)); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "soon", "2026-03-00", "2026-13-01 00:00:00"} {
		if got, err := parseTime([]byte(text)); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}

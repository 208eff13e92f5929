package enrich

import (
	"strings"
	"testing"
)

func TestSelectColumns(t *testing.T) {
	columns := []string{"id", "tier", "profile", "a.b"}
	for _, c := range []struct{ names, read, narrow, kept string }{
		{"", "", "", `{"id":1,"profile":{"city":"x","zip":2},"tier":"t"}`},
		{"tier id", "tier id", "", `{"id":1,"profile":{"city":"x","zip":2},"tier":"t"}`},
		{"tier tier", "tier", "", `{"id":1,"profile":{"city":"x","zip":2},"tier":"t"}`},
		{"a.b", "a.b", "", `{"id":1,"profile":{"city":"x","zip":2},"tier":"t"}`},
		{"profile.city", "profile", "profile", `{"profile":{"city":"x"}}`},
		{"tier profile.city profile.zip", "tier profile", "profile", `{"profile":{"city":"x","zip":2},"tier":"t"}`},
		{"profile.city profile", "profile", "", `{"id":1,"profile":{"city":"x","zip":2},"tier":"t"}`},
		{"x", "it has no column \"x\", but id, tier", "", ""},
		{"x.y", "it has no column \"x\"", "", ""},
		{"profile.", "not the name of a field", "", ""},
		{"profile.city a.b", `column "a.b" cannot be selected beside`, "", ""},
	} {
		read, keep, narrow, err := SelectColumns(strings.Fields(c.names), columns)
		if c.kept == "" {
			if err == nil || !strings.Contains(err.Error(), c.read) {
				t.Errorf("%s: %v", c.names, err)
			}
			continue
		}
		kept, _ := keep.Object([]byte(`{"id":1,"profile":{"city":"x","zip":2},"tier":"t"}`))
		if err != nil || strings.Join(read, " ") != c.read || strings.Join(narrow, " ") != c.narrow || string(kept) != c.kept {
			t.Errorf("%s: %q, %q, %s, %v", c.names, read, narrow, kept, err)
		}
	}
}

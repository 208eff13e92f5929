package windows

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/millstream/millstream/stream"
)

var update = flag.Bool("update", false, "rewrite the golden files with what the code does")

// TestGolden runs scripts: events and watermarks in, closed windows out. Lines that start with "> "
// are what the line before them printed.
//
//	window W                 first
//	aggregate F F(p) …       each function's argument is the next word of an add
//	add PARTITION TIME KEY ARG…
//	watermark PARTITION TIME raises it and freezes what it passed
//	advance [TIME]           the merger, to the smallest watermark or to TIME
//	restart PARTITION|merger saves and restores the state
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			before, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			after := runScript(t, string(before))
			if *update {
				if err := os.WriteFile(file, []byte(after), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if after != string(before) {
				t.Errorf("%s differs; what the code does:\n%s", file, after)
			}
		})
	}
}

func runScript(t *testing.T, script string) string {
	var out strings.Builder
	var w Windows
	var f *fleet[args, Result]
	for line := range strings.Lines(script) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, ">") {
			continue
		}
		out.WriteString(line + "\n")
		say := func(s string) { out.WriteString("> " + s + "\n") }
		word := strings.Fields(line)
		if len(word) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		switch word[0] {
		case "window":
			var err error
			if w, err = Parse(word[1]); err != nil {
				t.Fatal(err)
			}
		case "aggregate":
			var funcs []Func
			for _, name := range word[1:] {
				name, param, ok := strings.Cut(strings.TrimSuffix(name, ")"), "(")
				var params []float64
				if ok {
					p, err := strconv.ParseFloat(param, 64)
					if err != nil {
						t.Fatal(err)
					}
					params = append(params, p)
				}
				funcs = append(funcs, mustFunc(t, name, params...))
			}
			f = newFleet(t, columnsOf(w, funcs...), renderResult)
		case "add":
			e := stream.Event[args]{Key: word[3], Time: at(word[2])}
			for _, a := range word[4:] {
				e.Value = append(e.Value, parseArg(a))
			}
			if !f.add(word[1], e) {
				say("late")
			}
		case "watermark":
			to := stream.EndOfTime
			if word[2] != "end" {
				to = at(word[2])
			}
			f.freeze(word[1], to)
			for _, s := range f.pending {
				say("frozen " + s.partition + " " + s.Start.String() + " " + s.End.String() + " " + strconv.FormatInt(s.Count, 10))
			}
		case "advance":
			to := f.low()
			if len(word) > 1 {
				to = at(word[1])
			}
			f.rows = nil
			f.advance(to, true)
			for _, r := range f.rows {
				say(r)
			}
		case "restart":
			if word[1] == "merger" {
				f.restartMerger()
			} else {
				f.restart(word[1])
			}
		default:
			t.Fatalf("what is %q?", line)
		}
	}
	return out.String()
}

func parseArg(s string) Value {
	switch {
	case s == "null":
		return Value{}
	case strings.HasPrefix(s, `"`):
		return str(strings.Trim(s, `"`))
	case strings.HasPrefix(s, "{"), s == "true":
		return Value{Kind: Other, S: s}
	}
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return num(i)
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		panic(err)
	}
	return flt(f)
}

package service_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millstream/millstream/fakes/firehose"
	"github.com/millstream/millstream/service"
	"github.com/millstream/millstream/stream"
)

func TestFirehose(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "any")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "any")
	server := firehose.New(firehose.Options{})
	endpoint, err := server.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := server.CreateDeliveryStream("rows"); err != nil {
		t.Fatal(err)
	}
	url := "firehose://rows?region=us-east-1&endpoint=" + endpoint
	dir := t.TempDir()
	var lines []string
	for i := range 1000 {
		lines = append(lines, fmt.Sprintf(`{"k":"a","t":%d}`, i+1))
	}
	in := filepath.Join(dir, "in.ndjson")
	if err := os.WriteFile(in, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	for bad, want := range map[string]string{
		url + "&pack=2MiB":            "want a size up to 1000KiB",
		url + "&pack=big":             "want a size up to 1000KiB",
		url + "&packed=1":             "has no parameter packed: did you mean pack?",
		"firehose://none?" + url[16:]: "does not exist in us-east-1",
	} {
		s := settings(t, "--source", in, "--until-end")
		s.Sinks = []string{bad}
		if err := service.RunQuery(t.Context(), s, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", bad, err)
		}
	}

	s := settings(t, "--source", in, "--until-end")
	s.Sinks, s.Checkpoint = []string{url}, filepath.Join(dir, "state")
	var log bytes.Buffer
	if err := service.RunQuery(t.Context(), s, &log); err != nil {
		t.Fatal(err)
	}
	got := bytes.Count(bytes.Join(server.Records("rows"), nil), []byte("\n"))
	if stats := server.Stats("rows"); got != 1000 || stats.Records > 5 {
		t.Errorf("%d rows in %+v", got, stats)
	}
	var out bytes.Buffer
	if err := service.Check(t.Context(), &s.Settings, stream.Plan{}, nil, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"at least once", "deduplicate by it", "firehose:PutRecordBatch, firehose:DescribeDeliveryStream on delivery stream rows"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("check does not say %q:\n%s", want, out.String())
		}
	}
}

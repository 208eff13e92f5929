package kinesis

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awskinesis "github.com/aws/aws-sdk-go-v2/service/kinesis"

	cloud "github.com/millstream/millstream/cloud/aws"
	fake "github.com/millstream/millstream/fakes/kinesis"
	"github.com/millstream/millstream/sinks/sinktest"
	"github.com/millstream/millstream/stream"
)

// wired sends requests over a wire. A request may outlive its caller, and a reply is whole.
type wired struct {
	wire *sinktest.Wire
	http.RoundTripper
}

func (w *wired) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return nil, err
	}
	var reply *http.Response
	err = w.wire.Call(r.Context(), func(ctx context.Context) error {
		again := r.Clone(ctx)
		again.Body = io.NopCloser(bytes.NewReader(body))
		got, err := w.RoundTripper.RoundTrip(again)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(got.Body)
		if err := errors.Join(err, got.Body.Close()); err != nil {
			return err
		}
		got.Body = io.NopCloser(bytes.NewReader(data))
		reply = got
		return nil
	})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

func TestSuite(t *testing.T)      { suite(t, false) }
func TestSuitePlain(t *testing.T) { suite(t, true) }

func suite(t *testing.T, plain bool) {
	for _, c := range sinktest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			inBubble(t, fake.Options{}, func(b *bed) {
				web := b.server.Client()
				defer web.CloseIdleConnections()
				err := c.Holds(b.Context(), &sinktest.Destination{
					Promise: sinktest.AtLeastOnceByID, Name: "stream s",
					Open: func(hook sinktest.Hook) (stream.Sink, error) {
						wire := new(sinktest.Wire)
						client := awskinesis.New(awskinesis.Options{
							Region: "us-east-1", BaseEndpoint: aws.String("http://127.0.0.1"),
							HTTPClient:  cloud.Steady(&http.Client{Transport: &wired{wire, web.Transport}}),
							Credentials: credentials.NewStaticCredentialsProvider("any", "any", ""),
						})
						s, err := New(b.Context(), Options{Stream: "s", Client: client, Plain: plain, Logger: slog.New(slog.DiscardHandler)})
						wire.Begin(hook)
						return s, err
					},
					Seen: func(context.Context) ([][]byte, error) {
						records, err := b.server.UserRecords("s")
						rows := make([][]byte, len(records))
						for i := range records {
							rows[i] = records[i].Data
						}
						return rows, err
					},
				})
				if err != nil {
					b.Error(err)
				}
			})
		})
	}
}

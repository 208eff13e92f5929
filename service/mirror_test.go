package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millstream/millstream/consumers/consumertest"
	"github.com/millstream/millstream/stream"
)

// blobs is a container that notes the metadata written to it.
type blobs struct {
	mu     sync.Mutex
	meta   map[string]map[string]string
	writes int
	refuse error
}

func (b *blobs) PutMetadata(_ context.Context, name string, meta map[string]string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writes++
	if b.refuse != nil {
		return b.refuse
	}
	b.meta[name] = maps.Clone(meta)
	return nil
}

func (b *blobs) refusing(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refuse = err
}

func (b *blobs) says(partition string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.meta["ns.servicebus.windows.net/hub/$default/checkpoint/"+partition]
	return fmt.Sprint(m["offset"], "/", m["sequencenumber"], ", ", len(b.meta), " blobs, ", b.writes, " writes")
}

// onePartition lists partition "0".
type onePartition struct{}

func (onePartition) Partitions(context.Context) ([]stream.Partition, error) {
	return []stream.Partition{{Name: "0"}}, nil
}
func (onePartition) Tip(context.Context) (string, error) { return "", nil }

// Saved positions are copied to the SDK's checkpoint blobs within ten seconds and at the end, none that
// is not saved, and each once; a container that refuses is one warning, and nothing waits for it.
func TestMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to, log := &blobs{meta: make(map[string]map[string]string)}, &strings.Builder{}
		m := &mirror{Group: consumertest.NewLogs().Group(), group: "NS.servicebus.windows.net/Hub/$Default", to: to, logger: slog.New(slog.NewTextHandler(log, nil))}
		ctx, stop := context.WithCancel(t.Context())
		wait := func(d time.Duration, want string) {
			t.Helper()
			<-time.After(d)
			synctest.Wait()
			if got := to.says("0"); got != want {
				t.Errorf("%s instead of %s", got, want)
			}
		}
		err := m.Run(ctx, onePartition{}, func(a *stream.Assignment) error {
			if a.Partition == stream.MergerPartition {
				<-a.Draining
				return a.Log.Append(context.Background(), &stream.Entry{Kind: stream.KindRelease})
			}
			save := func(n int64) {
				if err := a.Log.Append(t.Context(), &stream.Entry{Kind: stream.KindCheckpoint, Position: stream.Position{Token: fmt.Sprint(n, "@x"), Number: n}}); err != nil {
					t.Error(err)
				}
			}
			wait(time.Minute, "/, 0 blobs, 0 writes")
			save(7)
			wait(mirrorEvery, "7@x/7, 1 blobs, 1 writes")
			save(8)
			save(9)
			wait(time.Minute, "9@x/9, 1 blobs, 2 writes")
			to.refusing(errors.New("no"))
			save(10)
			wait(time.Minute, "9@x/9, 1 blobs, 8 writes")
			to.refusing(nil)
			wait(mirrorEvery, "10@x/10, 1 blobs, 9 writes")
			save(11)
			stop()
			<-a.Draining
			return a.Log.Append(context.Background(), &stream.Entry{Kind: stream.KindRelease})
		})
		if got := to.says("0"); err != nil || got != "11@x/11, 1 blobs, 10 writes" {
			t.Errorf("at the end: %s, %v", got, err)
		}
		if n := strings.Count(log.String(), "not copied to the checkpoint blob"); n != 1 {
			t.Errorf("%d warnings:\n%s", n, log)
		}
	})
}

package service

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/checkpoint"
)

// OpenNew opens the saved state of a pipeline that is to be made: a local folder is made with it. With
// dry nothing is, and store is nil when the folder is not there. done closes it.
func (s *StoreSettings) OpenNew(ctx context.Context, dry bool) (store *checkpoint.Store, done func(), err error) {
	if isLocal(s.Checkpoint) && dry {
		l, err := parseLocation("--checkpoint", s.Checkpoint)
		if err != nil {
			return nil, nil, err
		}
		if _, err := os.Stat(l.rest); errors.Is(err, fs.ErrNotExist) {
			return nil, func() {}, nil
		}
	}
	b, err := openBucket(ctx, "--checkpoint", s.Checkpoint)
	if err != nil {
		return nil, nil, err
	}
	if !dry {
		if err := bucket.Check(ctx, b); err != nil {
			b.Close()
			return nil, nil, unusable("--checkpoint", err, "%v")
		}
	}
	store, err = checkpoint.Open(ctx, checkpoint.Config{Bucket: b, Name: s.Name, Lease: s.Lease, Checked: true})
	if err != nil {
		b.Close()
		return nil, nil, err
	}
	return store, func() { b.Close() }, nil
}

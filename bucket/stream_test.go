package bucket_test

import (
	"bytes"
	"context"
	"io"
	"slices"
	"testing"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/bucket/buckettest"
)

// careless makes an object of what there is when its writer gives up, or has no regard for the condition.
type careless struct {
	bucket.Bucket
	overwrites bool
}

func (c *careless) CreateFrom(ctx context.Context, name string, write func(io.Writer) error) error {
	if c.overwrites {
		if err := c.Delete(ctx, name); err != nil {
			return err
		}
		return c.Bucket.CreateFrom(ctx, name, write)
	}
	var data bytes.Buffer
	err := write(&data)
	if stored := c.Create(context.WithoutCancel(ctx), name, data.Bytes()); err == nil {
		err = stored
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// TestStreamedNegative: the suite notices both.
func TestStreamedNegative(t *testing.T) {
	for name, overwrites := range map[string]bool{"Streamed": true, "StreamGivenUp": false} {
		cases := buckettest.Cases()
		i := slices.IndexFunc(cases, func(c buckettest.Case) bool { return c.Name == name })
		if err := cases[i].Holds(t.Context(), &careless{bucket.Memory(), overwrites}, "x/"); err == nil {
			t.Errorf("%s passes", name)
		} else {
			t.Log(err)
		}
	}
}

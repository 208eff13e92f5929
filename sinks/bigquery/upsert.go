package bigquery

import (
	"context"
	"fmt"

	"github.com/millstream/millstream/stream"
)

// Upserter keeps, for each primary key, the newest row. It is safe for concurrent use, as stream.Sink asks.
type Upserter struct{ *table }

var _ stream.Sink = (*Upserter)(nil)

// Mode returns Upsert.
func (u *Upserter) Mode() Mode { return Upsert }

// Deliver sends rows as changes to their primary keys. Done again it changes nothing, nor does it when
// later ones were delivered before. Rows that the table does not take stand in a *stream.Rejected.
func (u *Upserter) Deliver(ctx context.Context, id stream.CheckpointID, rows []stream.Row) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("bigquery: table %s: %w", u.shown, err)
	}
	f, err := u.freeze(ctx, len(rows), func(p *plan, i int) ([]byte, error) {
		return p.encodeChange(rows[i].Data, sequence(id, i), u.unknown == Ignore)
	})
	if err != nil {
		return err
	}
	if err := u.write(ctx, f); err != nil {
		return err
	}
	return u.rejection(f)
}

// sequence is the place of a row among the changes to its key: hexadecimal numbers with slashes between,
// compared one after the other, see
// https://cloud.google.com/bigquery/docs/change-data-capture#manage_custom_ordering.
func sequence(id stream.CheckpointID, index int) string {
	return fmt.Sprintf("%X/%X/%X", id.Number, id.Part, index)
}

package bigquery

import (
	"context"
	"fmt"

	pb "cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millstream/millstream/stream"
)

// request sends one request and waits for its answer, no longer than the deadline.
func (t *table) request(ctx context.Context, r request) (*pb.AppendRowsResponse, error) {
	t.requests.Add(1)
	for _, row := range r.rows {
		t.bytes.Add(int64(len(row)))
	}
	bounded, cancel := context.WithTimeout(ctx, t.deadline)
	defer cancel()
	out, err := t.service.append(bounded, r)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("no answer within %s: %w", t.deadline, err)
	}
	if out.GetUpdatedSchema() != nil {
		t.stale()
	}
	return out, err
}

// refuse takes the rows out of a batch that the service does not take, and reports whether there were any.
func (t *table) refuse(f *frozen, b *batch, errs []*pb.RowError) bool {
	bad := make(map[int]string)
	for _, e := range errs {
		if i := int(e.Index); i >= 0 && i < len(b.rows) {
			bad[i] = oneLine(e.Message)
		}
	}
	rest := batch{}
	for i := range b.rows {
		why, refused := bad[i]
		if refused {
			f.refused = append(f.refused, stream.RejectedRow{Index: b.at[i], Reason: fmt.Sprintf("table %s refuses the row: %s", t.shown, why)})
			continue
		}
		rest.rows, rest.at = append(rest.rows, b.rows[i]), append(rest.at, b.at[i])
	}
	*b = rest
	return len(bad) > 0
}

// write sends batches to the table's default stream, where what was sent is visible at once: each at least
// once.
func (t *table) write(ctx context.Context, f *frozen) error {
	name := t.name + "/streams/_default"
	for i := range f.batches {
		b := &f.batches[i]
		for n := 1; len(b.rows) > 0; {
			out, err := t.request(ctx, request{name, f.plan, -1, b.rows})
			if err == nil && len(out.RowErrors) > 0 {
				if !t.refuse(f, b, out.RowErrors) {
					return fmt.Errorf("bigquery: table %s: the service refuses rows that it was not sent: %v", t.shown, out.RowErrors)
				}
				continue
			}
			if err == nil && out.GetError() == nil {
				break
			}
			if err == nil {
				err = status.FromProto(out.GetError()).Err()
			}
			switch status.Code(err) {
			case codes.InvalidArgument, codes.NotFound:
				t.stale()
			case codes.ResourceExhausted:
			default:
				t.ambiguous.Add(1)
			}
			if err := t.again(ctx, n, err); err != nil {
				return fmt.Errorf("bigquery: table %s: %w", t.shown, err)
			}
			n++
		}
	}
	return nil
}

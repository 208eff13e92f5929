// Package blobstore reads where programs built on the Event Hubs SDKs' processors, or on Azure
// Functions, have stopped: their checkpoints in an Azure Blob container. It writes such checkpoints too,
// for tools that show the lag.
//
// # The life of a checkpoint
//
// Every SDK, and Functions since version 5 of their Event Hubs extension, keep one blob a partition,
// in lower case, whose metadata say which event was the last one processed:
//
//	NAMESPACE/HUB/CONSUMER-GROUP/checkpoint/PARTITION    metadata: offset, sequencenumber
//	NAMESPACE/HUB/CONSUMER-GROUP/ownership/PARTITION     metadata: ownerid; written again all the time
//
// Older Functions, and the EventProcessorHost that they are made of, keep a lease blob with a JSON body:
//
//	NAMESPACE/HUB/CONSUMER-GROUP/PARTITION               {"Offset":"…","SequenceNumber":…,"PartitionId":"…","Owner":"…","Token":"…","Epoch":…}
//
// A program that was brought up to date leaves the old blobs behind, and goes by the new ones; so does
// this package. Ownership is renewed all the time: blobs that stand still are nobody's.
package blobstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/stream"
)

// Store is a container, or a part of it.
type Store interface {
	List(ctx context.Context, prefix string) ([]string, error)
	Get(ctx context.Context, name string) ([]byte, error)
	bucket.Describer
}

// Group is one consumer group's checkpoints.
type Group struct {
	// Name is NAMESPACE/HUB/CONSUMER-GROUP, as the store has it.
	Name string
	// Partitions are those with a checkpoint: offset and sequence number of the last event processed.
	Partitions []stream.RosterRow
	// Unread are partitions that were owned and have no checkpoint yet.
	Unread []string
	Owners []string
	// State changes whenever anybody works on the group.
	State string
}

// checkpoint is what one blob says.
type checkpoint struct {
	offset   string
	sequence int64
}

// Read reads one group's checkpoints: the one of that name, or the only one there is.
func Read(ctx context.Context, s Store, name string) (*Group, error) {
	names, err := s.List(ctx, "")
	if err != nil {
		return nil, err
	}
	groups := make(map[string][]string) // blobs by group
	for _, blob := range names {
		parts := strings.Split(blob, "/")
		if strings.Trim(parts[len(parts)-1], "0123456789") != "" {
			continue // partitions are numbers
		}
		if len(parts) == 4 || len(parts) == 5 && (parts[3] == "checkpoint" || parts[3] == "ownership") {
			group := strings.Join(parts[:3], "/")
			groups[group] = append(groups[group], blob)
		}
	}
	known := slices.Sorted(maps.Keys(groups))
	switch {
	case len(known) == 0:
		return nil, errors.New("no checkpoints: want blobs named NAMESPACE/HUB/CONSUMER-GROUP/checkpoint/PARTITION, or NAMESPACE/HUB/CONSUMER-GROUP/PARTITION")
	case name == "" && len(known) > 1:
		return nil, fmt.Errorf("checkpoints of several consumer groups: add group=NAMESPACE/HUB/CONSUMER-GROUP, one of %s", strings.Join(known, ", "))
	case name == "":
		name = known[0]
	case groups[strings.ToLower(name)] != nil:
		name = strings.ToLower(name)
	case groups[name] == nil:
		return nil, fmt.Errorf("no checkpoints of %s: there are those of %s", name, strings.Join(known, ", "))
	}
	return read(ctx, s, name, groups[name])
}

func read(ctx context.Context, s Store, name string, blobs []string) (*Group, error) {
	g := &Group{Name: name}
	var state strings.Builder
	owners, seen, old, fresh := make(map[string]bool), make(map[string]bool), make(map[string]checkpoint), make(map[string]checkpoint)
	for _, blob := range blobs {
		parts := strings.Split(blob, "/")
		partition := parts[len(parts)-1]
		a, err := s.Attributes(ctx, blob)
		if errors.Is(err, bucket.ErrNotFound) {
			continue // deleted meanwhile: nobody's any more
		}
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&state, "%s|%s|%v\n", blob, a.Tag, a.Metadata)
		owner := ""
		switch {
		case len(parts) == 5 && parts[3] == "ownership":
			owner = meta(a, "ownerid")
		case len(parts) == 5:
			c, err := described(a)
			if err != nil {
				return nil, fmt.Errorf("checkpoint %s: %w", blob, err)
			}
			fresh[partition] = c
		default:
			body, err := s.Get(ctx, blob)
			if errors.Is(err, bucket.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			state.Write(body)
			c, by, begun, err := legacy(body)
			if err != nil {
				return nil, fmt.Errorf("lease %s: %w", blob, err)
			}
			if owner = by; begun {
				old[partition] = c
			}
		}
		seen[partition] = true
		if owner != "" {
			owners[owner] = true
		}
	}
	maps.Copy(old, fresh)
	for _, partition := range slices.SortedFunc(maps.Keys(seen), byNumber) {
		c, ok := old[partition]
		if !ok {
			g.Unread = append(g.Unread, partition)
			continue
		}
		g.Partitions = append(g.Partitions, stream.RosterRow{Partition: stream.Partition{Name: partition}, From: stream.Position{Token: c.offset, Number: c.sequence}})
	}
	if len(g.Partitions) == 0 {
		return nil, fmt.Errorf("%s has no checkpoint yet", name)
	}
	g.Owners, g.State = slices.Sorted(maps.Keys(owners)), state.String()
	return g, nil
}

// byNumber sorts partition ids as numbers, which they are.
func byNumber(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// meta looks a key up: previews of the SDKs wrote sequence_number and owner_id.
func meta(a bucket.Attributes, key string) string {
	for k, v := range a.Metadata {
		if strings.ToLower(strings.ReplaceAll(k, "_", "")) == key {
			return v
		}
	}
	return ""
}

// described reads a checkpoint from a blob's metadata.
func described(a bucket.Attributes) (c checkpoint, err error) {
	c.offset = meta(a, "offset")
	if c.offset == "" {
		return c, errors.New("its metadata have no offset")
	}
	if c.sequence, err = strconv.ParseInt(meta(a, "sequencenumber"), 10, 64); err != nil {
		return c, fmt.Errorf("its metadata's sequencenumber %q is no number", meta(a, "sequencenumber"))
	}
	return c, nil
}

// legacy reads a lease of the EventProcessorHost. One that was never checkpointed has no offset.
func legacy(body []byte) (c checkpoint, owner string, begun bool, err error) {
	var l struct {
		Offset         *string
		SequenceNumber int64
		PartitionID    string `json:"PartitionId"`
		Owner          string
	}
	if err := json.Unmarshal(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), &l); err != nil {
		return c, "", false, fmt.Errorf("is no lease: %w", err)
	}
	if l.PartitionID == "" {
		return c, "", false, errors.New("is no lease: it has no PartitionId")
	}
	if l.Offset == nil || *l.Offset == "" {
		return c, l.Owner, false, nil
	}
	return checkpoint{*l.Offset, l.SequenceNumber}, l.Owner, true, nil
}

// Write keeps a position, that of the last event processed, as the SDKs' checkpoint of a partition, in the
// container to. group is NAMESPACE/HUB/CONSUMER-GROUP with the whole name of the namespace; the blob's
// name is in lower case, as all SDKs but Go's write and find it, and autoscalers too.
func Write(ctx context.Context, to bucket.Marker, group, partition string, at stream.Position) error {
	return to.PutMetadata(ctx, strings.ToLower(group)+"/checkpoint/"+partition,
		map[string]string{"offset": at.Token, "sequencenumber": strconv.FormatInt(at.Number, 10)})
}

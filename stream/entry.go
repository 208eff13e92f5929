package stream

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Kind tells the entries of a log apart.
type Kind string

const (
	KindClaim      Kind = "claim"      // somebody owns the partition from here on (A2)
	KindCheckpoint Kind = "checkpoint" // state, position and staged output
	KindRelease    Kind = "release"    // the owner left; everything before is committed (A5)
	KindEnd        Kind = "end"        // the partition holds no more records (M8)
	KindReset      Kind = "reset"      // the partition starts again from the source's start (A7)
	KindImport     Kind = "import"     // the merger's first entry in a pipeline that goes on for another program
)

// MergerPartition is the name of the merger among the partitions of a pipeline.
const MergerPartition = "_merger"

// Entry is one numbered, immutable object of a partition's log. The lane or the merger fills in
// what it knows; the log adds number, owner, nonce, genesis, plan, base and elapsed time. An entry
// returned by a log is shared and must not be modified.
type Entry struct {
	Number  uint64        `json:"-"` // the object's name, not its content
	Kind    Kind          `json:"kind"`
	Owner   string        `json:"owner"`             // member id
	Nonce   string        `json:"nonce"`             // tells this entry from any other offered for its number (A1)
	Genesis string        `json:"genesis"`           // nonce of the log's first entry (A7)
	Plan    Plan          `json:"plan,omitempty"`    // what must not change (A8)
	Base    uint64        `json:"base,omitempty"`    // claim: the checkpoint or reset it resumes from, 0 for none
	Elapsed time.Duration `json:"elapsed,omitempty"` // monotonic, since the entry before it in the same claim (A6)

	Position   Position    `json:"position,omitzero"`
	Watermark  Instant     `json:"watermark"`
	Idle       bool        `json:"idle,omitempty"`
	State      ReaderState `json:"state,omitempty"`
	Snapshot   []Blob      `json:"snapshot,omitempty"`
	Frozen     []Frozen    `json:"frozen,omitempty"` // by end, every one not yet covered by a saved frontier
	Rows       Staged      `json:"rows,omitzero"`    // output of every sink that takes rows
	Dead       Staged      `json:"dead,omitzero"`    // dead letters
	Stagers    []StagedBy  `json:"stagers,omitempty"`
	Files      []Rolling   `json:"files,omitempty"`
	IDs        []Blob      `json:"ids,omitempty"` // of the records that this entry counts and the one before does not (Redelivering)
	Ledger     Ledger      `json:"ledger"`
	SinkLosses int64       `json:"sink_losses,omitempty"` // rows that a sink rejected alone

	Children      []Partition `json:"children,omitempty"` // end
	LastWatermark Instant     `json:"last_watermark"`     // end: the last watermark before it became +∞
	Lost          bool        `json:"lost,omitempty"`     // end: gone from the source before it was read

	Seen   *Mark        `json:"seen,omitempty"` // of lanes: the newest entry of the merger's log that the owner knew (A9)
	Merger *MergerEntry `json:"merger,omitempty"`
}

// Mark names an entry of another log.
type Mark struct {
	Number  uint64 `json:"number"`
	Genesis string `json:"genesis"`
}

// Restorable reports whether a claim can resume from the entry.
func (e *Entry) Restorable() bool {
	return e.Kind == KindCheckpoint || e.Kind == KindReset || e.Kind == KindEnd || e.Kind == KindImport
}

// Blobs calls f for every blob that the entry names.
func (e *Entry) Blobs(f func(*Blob)) {
	each := func(bs []Blob) {
		for i := range bs {
			f(&bs[i])
		}
	}
	each(e.Snapshot)
	for i := range e.Frozen {
		f(&e.Frozen[i].Data)
	}
	each(e.Rows.Parts)
	each(e.Dead.Parts)
	each(e.IDs)
	for i := range e.Files {
		each(e.Files[i].Parts)
	}
}

// MergerEntry is what only the merger's entries hold.
type MergerEntry struct {
	Frontier Instant     `json:"frontier"` // F: rows of windows that end at or before it are out (M4)
	Target   Instant     `json:"target"`   // what idle lanes raise their watermark to (M5)
	Roster   []RosterRow `json:"roster"`   // by name
	Tip      string      `json:"tip,omitempty"`
	// HeldBy is the partition whose watermark was the smallest, and HeldSince for how long, by the
	// merger's wall clock, it has been: for people, not for the protocol.
	HeldBy    string    `json:"held_by,omitempty"`
	HeldSince time.Time `json:"held_since,omitzero"`
	// LatePartials counts records of slices found at or below the frontier. It must be 0 (M6).
	LatePartials int64 `json:"late_partials,omitempty"`
	// Imported is set in every entry of a pipeline that began with another program's checkpoints.
	Imported *Imported `json:"imported,omitempty"`
}

// Imported says where a pipeline's first positions came from.
type Imported struct {
	From string   `json:"from"`          // "kcl://TABLE", for people
	Rest Position `json:"rest,omitzero"` // where partitions begin that it did not name
}

// RosterRow admits one partition: it starts at Start and From, which never change (M3).
type RosterRow struct {
	Partition
	Start Instant `json:"start"`
	Ended bool    `json:"ended,omitempty"` // its end is saved and its children are in the roster
	// From is where it is read from while it has no checkpoint: the zero Position, unless an import
	// says otherwise. Done means that it had ended before the import, and has no log.
	From Position `json:"from,omitzero"`
	Done bool     `json:"done,omitempty"`
	// Newest is the newest entry of its log from which the merger knew it: the log cannot end before (A9).
	Newest uint64 `json:"newest,omitempty"`
}

// Blob is a run of bytes that an entry holds or names.
type Blob struct {
	Object string `json:"object,omitempty"` // name below the pipeline's folder; empty: Inline
	Inline []byte `json:"-"`                // stored after the entry's header
	Size   int64  `json:"size"`             // before compression
	Sum    uint64 `json:"sum,omitempty"`    // checksum of the object's stored bytes
}

// Frozen is a slice that no record of its partition can change any more (M1).
type Frozen struct {
	Start Instant `json:"start"`
	End   Instant `json:"end"`
	Count int64   `json:"count"` // records folded into it
	Data  Blob    `json:"data"`
}

// Staged is saved output, delivered part by part after the save, each part under its own id.
type Staged struct {
	Parts []Blob `json:"parts,omitempty"`
	Count int64  `json:"count,omitempty"`
}

// StagedBy is what a Stager holds for the entry.
type StagedBy struct {
	Sink  string `json:"sink"`
	Token []byte `json:"token"`
}

// Ledger accounts for every record: RecordsIn = Contributed + Filtered + Late + DeadLettered.
type Ledger struct {
	RecordsIn    int64 `json:"records_in"`
	Contributed  int64 `json:"contributed"`
	Filtered     int64 `json:"filtered"`
	Late         int64 `json:"late"`
	DeadLettered int64 `json:"dead_lettered"`
	RowsOut      int64 `json:"rows_out"`
}

// Add adds o to l.
func (l *Ledger) Add(o Ledger) {
	l.RecordsIn += o.RecordsIn
	l.Contributed += o.Contributed
	l.Filtered += o.Filtered
	l.Late += o.Late
	l.DeadLettered += o.DeadLettered
	l.RowsOut += o.RowsOut
}

// Imbalance is RecordsIn less everything that became of the records. It must be 0.
func (l Ledger) Imbalance() int64 {
	return l.RecordsIn - l.Contributed - l.Filtered - l.Late - l.DeadLettered
}

// Setting is one line of a plan, named as the user knows it.
type Setting struct {
	Name  string `json:"name"` // "--window"
	Value string `json:"value"`
}

// Plan is everything about a pipeline that its saved state depends on, in a fixed order (A8).
type Plan []Setting

// Changed describes the first difference to a later plan, or is empty: "--window changed (1m → 5m)".
func (p Plan) Changed(now Plan) string {
	value := func(q Plan, name string) string {
		for _, s := range q {
			if s.Name == name {
				return s.Value
			}
		}
		return ""
	}
	show := func(v string) string {
		if v == "" {
			return "none"
		}
		return v
	}
	for _, q := range []Plan{p, now} {
		for _, s := range q {
			if a, b := value(p, s.Name), value(now, s.Name); a != b {
				// Windows of one kind differ in their size alone: tumbling:1m → tumbling:5m.
				if kind, size, ok := strings.Cut(a, ":"); ok && s.Name == "--window" && strings.HasPrefix(b, kind+":") {
					a, b = size, b[len(kind)+1:]
				}
				return fmt.Sprintf("%s changed (%s → %s)", s.Name, show(a), show(b))
			}
		}
	}
	return ""
}

// CheckpointID names one part of the output of one entry, for ever: a sink that has seen the id has
// seen these very rows. A wiped log gets a new genesis, so its numbers cannot repeat an id.
type CheckpointID struct {
	Pipeline  string
	Genesis   string
	Partition string
	Number    uint64
	Part      int
	Kind      string // empty: rows; "dead": dead letters; "rejected-N": rows that sink N refused
}

func (id CheckpointID) dead(part int, kind string) CheckpointID {
	id.Part, id.Kind = part, kind
	return id
}

// String is safe as a file name and sorts by number and part within a partition.
func (id CheckpointID) String() string {
	g := id.Genesis
	if len(g) > 12 {
		g = g[:12]
	}
	s := fmt.Sprintf("%s-%s-%s-%020d-%04d", id.Pipeline, g, url.PathEscape(id.Partition), id.Number, id.Part)
	if id.Kind != "" {
		s += "-" + id.Kind
	}
	return s
}

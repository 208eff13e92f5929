// Package datastore looks rows up in Google Datastore, or Firestore in Datastore mode: entities of one kind by the
// name or id of their key, up to 1,000 a Lookup call.
//
// The calls are the generated stub's and not the client library's, which asks again by itself for keys that the
// service has deferred, as long as it takes, and reads every property even if one is wanted.
package datastore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	pb "cloud.google.com/go/datastore/apiv1/datastorepb"
	"google.golang.org/api/option"
	gtransport "google.golang.org/api/transport/grpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/millstream/millstream/cloud/gcp"
	"github.com/millstream/millstream/enrich"
)

// EmulatorVariable is the environment variable with the address of a stand-in.
const EmulatorVariable = "DATASTORE_EMULATOR_HOST"

const (
	// maxKeys of one call, https://cloud.google.com/datastore/docs/concepts/limits.
	maxKeys = 1000
	// maxName is the most bytes of a key's name, from the same page.
	maxName    = 1500
	service    = "datastore.googleapis.com:443"
	scope      = "https://www.googleapis.com/auth/datastore"
	verifyWait = 10 * time.Second
	// mostDeferred is how often keys that an answer leaves out are asked for within one call.
	mostDeferred = 10
)

// Options say which entities.
type Options struct {
	Project   string
	Kind      string
	Database  string // default: the project's default database
	Namespace string // default: the default one
	// IDs says that keys are numeric ids, and not names. A text that is no positive integer is then absent.
	IDs bool
	// Select names the properties to read; a.b is property b of the embedded entity a. Default: all.
	Select []string
	// Eventual permits answers that miss what was written a moment ago. Default: strongly consistent reads.
	Eventual bool
	// Endpoint is the address of a stand-in that speaks without TLS. Default: DATASTORE_EMULATOR_HOST, and
	// otherwise the service.
	Endpoint string
}

// Table is an enrich.Table.
type Table struct {
	o      Options
	fields enrich.Fields
	mask   *pb.PropertyMask
	conn   *grpc.ClientConn
	stub   pb.DatastoreClient
	params string // of the header by which the service routes a call
}

var _ enrich.Table = (*Table)(nil)

// New makes a Table. It asks for one entity, so that what cannot be read is an error here. It takes ten seconds
// at most. Credentials are what Google's default chain finds.
func New(ctx context.Context, o Options) (*Table, error) {
	if o.Project == "" || o.Kind == "" {
		return nil, errors.New("datastore: project and kind are needed")
	}
	t := &Table{o: o, params: "project_id=" + url.QueryEscape(o.Project)}
	if o.Database != "" {
		t.params += "&database_id=" + url.QueryEscape(o.Database)
	}
	var err error
	if t.fields, err = enrich.SelectFields(o.Select); err != nil {
		return nil, fmt.Errorf("datastore: %w", err)
	}
	if len(o.Select) > 0 {
		t.mask = &pb.PropertyMask{}
		for _, name := range o.Select {
			first, _, _ := strings.Cut(name, ".")
			t.mask.Paths = append(t.mask.Paths, first)
		}
	}
	conn, err := dial(ctx, o.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("datastore: %w", gcp.Explain(err))
	}
	t.conn, t.stub = conn, pb.NewDatastoreClient(conn)
	ctx, cancel := context.WithTimeout(ctx, verifyWait)
	defer cancel()
	if _, err := t.Lookup(ctx, []string{"0"}); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return t, nil
}

// dial opens a connection that is made when it is needed.
func dial(ctx context.Context, endpoint string) (*grpc.ClientConn, error) {
	if endpoint == "" {
		endpoint = os.Getenv(EmulatorVariable)
	}
	if _, rest, found := strings.Cut(endpoint, "://"); found {
		endpoint = rest
	}
	if endpoint != "" {
		if _, _, err := net.SplitHostPort(endpoint); err != nil {
			return nil, fmt.Errorf("endpoint %q: want HOST:PORT", endpoint)
		}
		return grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	return gtransport.Dial(ctx, option.WithEndpoint(service), option.WithScopes(scope))
}

// Limit implements enrich.Table.
func (t *Table) Limit() int { return maxKeys }

// Close implements enrich.Table.
func (t *Table) Close() error { return t.conn.Close() }

// Lookup implements enrich.Table. Keys that the service defers are asked for again while that makes progress.
func (t *Table) Lookup(ctx context.Context, keys []string) (map[string][]enrich.Row, error) {
	if len(keys) > maxKeys {
		return nil, fmt.Errorf("datastore: %d keys in one call, %d at most", len(keys), maxKeys)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	wanted, asked := t.keys(keys)
	found, failed := make(map[string][]enrich.Row), map[string]error{}
	ctx = metadata.AppendToOutgoingContext(ctx, "x-goog-request-params", t.params)
	for n := 0; len(wanted) > 0; n++ {
		answer, err := t.stub.Lookup(ctx, &pb.LookupRequest{ProjectId: t.o.Project, DatabaseId: t.o.Database, Keys: wanted, PropertyMask: t.mask, ReadOptions: t.options()})
		if err != nil {
			if n > 0 { // what has been answered counts
				return t.partly(found, failed, wanted, gcp.Explain(err))
			}
			return nil, fmt.Errorf("datastore: kind %s: %w", t.o.Kind, gcp.Explain(err))
		}
		answered := 0
		for _, result := range answer.Found {
			text, ok := asked[pathOf(result.GetEntity().GetKey())]
			if !ok {
				return nil, fmt.Errorf("datastore: kind %s: an entity came that nobody asked for", t.o.Kind)
			}
			answered++
			row, err := t.row(result.Entity)
			if err != nil {
				failed[text] = err
				continue
			}
			found[text] = []enrich.Row{{JSON: row}}
		}
		answered += len(answer.Missing)
		if answered+len(answer.Deferred) != len(wanted) {
			return nil, fmt.Errorf("datastore: kind %s: of %d keys %d were answered and %d deferred", t.o.Kind, len(wanted), answered, len(answer.Deferred))
		}
		wanted = answer.Deferred
		if len(wanted) > 0 && (answered == 0 || n == mostDeferred) {
			return t.partly(found, failed, wanted, errors.New("deferred by the service"))
		}
	}
	if len(failed) > 0 {
		return found, &enrich.Failed[string]{Keys: failed}
	}
	return found, nil
}

// partly is an answer without some of its keys.
func (t *Table) partly(found map[string][]enrich.Row, failed map[string]error, missing []*pb.Key, err error) (map[string][]enrich.Row, error) {
	for _, key := range missing {
		failed[pathOf(key)] = fmt.Errorf("datastore: kind %s: %w", t.o.Kind, err)
	}
	return found, &enrich.Failed[string]{Keys: failed}
}

func (t *Table) options() *pb.ReadOptions {
	consistency := pb.ReadOptions_STRONG
	if t.o.Eventual {
		consistency = pb.ReadOptions_EVENTUAL
	}
	return &pb.ReadOptions{ConsistencyType: &pb.ReadOptions_ReadConsistency_{ReadConsistency: consistency}}
}

// keys are the distinct keys of texts, and the text of each. Texts that can be no key here are left out, since
// the service would refuse the whole call for one of them: nothing is stored under them.
func (t *Table) keys(texts []string) (wanted []*pb.Key, asked map[string]string) {
	asked = make(map[string]string, len(texts))
	partition := &pb.PartitionId{ProjectId: t.o.Project, DatabaseId: t.o.Database, NamespaceId: t.o.Namespace}
	for _, text := range texts {
		if _, twice := asked[text]; twice {
			continue
		}
		element := &pb.Key_PathElement{Kind: t.o.Kind, IdType: &pb.Key_PathElement_Name{Name: text}}
		if t.o.IDs {
			id, err := strconv.ParseInt(text, 10, 64)
			if err != nil || id <= 0 || strconv.FormatInt(id, 10) != text {
				continue
			}
			element.IdType = &pb.Key_PathElement_Id{Id: id}
		} else if !validName(text) {
			continue
		}
		asked[text] = text
		wanted = append(wanted, &pb.Key{PartitionId: partition, Path: []*pb.Key_PathElement{element}})
	}
	return wanted, asked
}

// pathOf is the text of a key.
func pathOf(k *pb.Key) string {
	if k == nil || len(k.Path) == 0 {
		return ""
	}
	last := k.Path[len(k.Path)-1]
	if id := last.GetId(); id != 0 {
		return strconv.FormatInt(id, 10)
	}
	return last.GetName()
}

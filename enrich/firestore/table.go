// Package firestore looks rows up in Cloud Firestore: documents of one collection by their ids, a BatchGetDocuments
// call for all of them.
//
// The calls are the generated stub's and not the client library's, which retries by itself. The answer is a stream:
// what has not been named when it ends, found or missing, is a failure and not an absence.
package firestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/api/option"
	gtransport "google.golang.org/api/transport/grpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/millstream/millstream/cloud/gcp"
	"github.com/millstream/millstream/enrich"
)

// EmulatorVariable is the environment variable with the address of a stand-in.
const EmulatorVariable = "FIRESTORE_EMULATOR_HOST"

const (
	// maxKeys of one call: no limit is published, and an answer should not take much longer than a few.
	maxKeys = 500
	// maxID is the most bytes of a document's id, https://firebase.google.com/docs/firestore/quotas.
	maxID      = 1500
	service    = "firestore.googleapis.com:443"
	scope      = "https://www.googleapis.com/auth/datastore"
	verifyWait = 10 * time.Second
)

// Options say which documents.
type Options struct {
	Project string
	// Collection is its path: "users", or "tenants/acme/users" for one below a document.
	Collection string
	Database   string // default: "(default)"
	// Select names the fields to read; a.b is field b of the map a. Default: all.
	Select []string
	// Endpoint is the address of a stand-in that speaks without TLS. Default: FIRESTORE_EMULATOR_HOST, and
	// otherwise the service.
	Endpoint string
}

// Table is an enrich.Table.
type Table struct {
	database string // full name
	prefix   string // of a document's name
	where    string // for messages
	fields   enrich.Fields
	mask     *pb.DocumentMask
	conn     *grpc.ClientConn
	stub     pb.FirestoreClient
	params   string // of the header by which the service routes a call
}

var _ enrich.Table = (*Table)(nil)

// New makes a Table. It asks for one document, so that what cannot be read is an error here. It takes ten seconds at
// most. Credentials are what Google's default chain finds.
func New(ctx context.Context, o Options) (*Table, error) {
	o.Collection = strings.Trim(o.Collection, "/")
	if o.Project == "" || o.Collection == "" || strings.Count(o.Collection, "/")%2 != 0 {
		return nil, fmt.Errorf("firestore: project %q, collection %q: want a project, and a collection such as users or tenants/acme/users", o.Project, o.Collection)
	}
	if o.Database == "" {
		o.Database = "(default)"
	}
	t := &Table{database: "projects/" + o.Project + "/databases/" + o.Database, where: o.Project + "/" + o.Collection}
	t.prefix = t.database + "/documents/" + o.Collection + "/"
	t.params = "database=" + url.QueryEscape(t.database)
	var err error
	if t.fields, err = enrich.SelectFields(o.Select); err != nil {
		return nil, fmt.Errorf("firestore: %w", err)
	}
	if len(o.Select) > 0 {
		t.mask = &pb.DocumentMask{}
		for _, name := range o.Select {
			first, _, _ := strings.Cut(name, ".")
			t.mask.FieldPaths = append(t.mask.FieldPaths, quoted(first))
		}
	}
	if t.conn, err = dial(ctx, o.Endpoint); err != nil {
		return nil, fmt.Errorf("firestore: %w", gcp.Explain(err))
	}
	t.stub = pb.NewFirestoreClient(t.conn)
	ctx, cancel := context.WithTimeout(ctx, verifyWait)
	defer cancel()
	if _, err := t.Lookup(ctx, []string{"0"}); err != nil {
		_ = t.conn.Close()
		return nil, err
	}
	return t, nil
}

// quoted is a field's name as a path has it: in backticks unless it is simple.
func quoted(name string) string {
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(name) + "`"
		}
	}
	return name
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

// Lookup implements enrich.Table.
func (t *Table) Lookup(ctx context.Context, keys []string) (map[string][]enrich.Row, error) {
	if len(keys) > maxKeys {
		return nil, fmt.Errorf("firestore: %d keys in one call, %d at most", len(keys), maxKeys)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	left, request := map[string]bool{}, &pb.BatchGetDocumentsRequest{Database: t.database, Mask: t.mask}
	for _, key := range keys {
		if !left[key] && validID(key) {
			left[key] = true
			request.Documents = append(request.Documents, t.prefix+key)
		}
	}
	found := make(map[string][]enrich.Row)
	if len(left) == 0 {
		return found, nil
	}
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "x-goog-request-params", t.params))
	defer cancel() // of a stream that is not read to its end
	stream, err := t.stub.BatchGetDocuments(ctx, request)
	failed := map[string]error{}
	for err == nil {
		var answer *pb.BatchGetDocumentsResponse
		if answer, err = stream.Recv(); err != nil {
			break
		}
		name := answer.GetMissing()
		if d := answer.GetFound(); d != nil {
			name = d.Name
		}
		if name == "" {
			continue // a time of reading alone
		}
		key, ok := strings.CutPrefix(name, t.prefix)
		if !ok || !left[key] {
			return nil, fmt.Errorf("firestore: %s: a document came that nobody asked for", t.where)
		}
		delete(left, key)
		if d := answer.GetFound(); d != nil {
			row, err := t.row(d)
			if err != nil {
				failed[key] = err
				continue
			}
			found[key] = []enrich.Row{{JSON: row}}
		}
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the answer ended without it")
	} else {
		err = gcp.Explain(err)
	}
	if len(left) == len(request.Documents) {
		return nil, fmt.Errorf("firestore: %s: %w", t.where, err)
	}
	for key := range left {
		failed[key] = fmt.Errorf("firestore: %s: %w", t.where, err)
	}
	if len(failed) > 0 {
		return found, &enrich.Failed[string]{Keys: failed}
	}
	return found, nil
}

// validID reports whether a text may be a document's id. Nothing is stored under others, and the service would
// refuse the whole call for one of them.
func validID(text string) bool {
	return text != "" && text != "." && text != ".." && len(text) <= maxID && utf8.ValidString(text) && !strings.Contains(text, "/") &&
		!(len(text) >= 4 && strings.HasPrefix(text, "__") && strings.HasSuffix(text, "__"))
}

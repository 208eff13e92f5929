package service

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	nethttp "net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/cloud/retry"
	"github.com/millstream/millstream/cloud/secret"
	"github.com/millstream/millstream/enrich"
	"github.com/millstream/millstream/enrich/azuretables"
	"github.com/millstream/millstream/enrich/datastore"
	"github.com/millstream/millstream/enrich/dynamodb"
	"github.com/millstream/millstream/enrich/file"
	"github.com/millstream/millstream/enrich/firestore"
	enrichhttp "github.com/millstream/millstream/enrich/http"
	"github.com/millstream/millstream/enrich/mysql"
	"github.com/millstream/millstream/enrich/postgres"
	"github.com/millstream/millstream/enrich/redis"
)

// openTable opens the table of an enrichment, and tries again for a while what may only have failed just now.
func openTable(ctx context.Context, e *enrichment, logger *slog.Logger) (enrich.Table, error) {
	var err error
	if e.location, err = resolveSecrets(ctx, e.location); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for n := 1; ; n++ {
		table, err := openTableOnce(ctx, e, logger)
		var setting *SettingError
		switch {
		case err == nil:
			return table, nil
		case errors.As(err, &setting):
			return nil, err
		case !passing(err) || ctx.Err() != nil || retry.Sleep(ctx, retry.Backoff(n)) != nil:
			return nil, unusable(enrichSetting, err, "%s: %v", e.query.Name)
		}
	}
}

// openTableOnce is the one switch from URLs to the tables of enrichments.
func openTableOnce(ctx context.Context, e *enrichment, logger *slog.Logger) (enrich.Table, error) {
	var table enrich.Table
	var err error
	if e.inFile() {
		return openFileTable(ctx, e, logger)
	}
	switch e.scheme {
	case "dynamodb":
		table, err = openDynamoDB(ctx, e)
	case "firestore":
		table, err = openFirestore(ctx, e)
	case "datastore":
		table, err = openDatastore(ctx, e)
	case "azuretables":
		table, err = openAzureTables(ctx, e)
	case "redis", "rediss":
		table, err = openRedis(ctx, e, logger)
	case "postgres":
		table, err = openPostgres(ctx, e, logger)
	case "mysql":
		table, err = openMySQL(ctx, e, logger)
	case "http", "https":
		table, err = openHTTPTable(ctx, e)
	default:
		return nil, e.unknown()
	}
	return table, err
}

// place splits what stands between scheme and parameters at its slashes, into n parts.
func (e *enrichment) place(n int, want string) ([]string, error) {
	parts := strings.Split(strings.Trim(e.location.rest, "/"), "/")
	if len(parts) != n || parts[0] == "" {
		return nil, settingf(enrichSetting, "%s: write %s", e.query.Name, want)
	}
	return parts, nil
}

// number reads a parameter that counts something; 0 if it is not there.
func (e *enrichment) number(name string) (int, error) {
	text := e.params.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, settingf(enrichSetting, "%s: %s=%s: want a number", e.query.Name, name, text)
	}
	return n, nil
}

// timeless refuses as-of= where tables do not say for which time rows are valid.
func (e *enrichment) timeless() error {
	if e.asOf != nil {
		return settingf(enrichSetting, "%s: as-of= is for file tables and SQL", e.query.Name)
	}
	return nil
}

// openFileTable opens PATH?key=&format=&reload=, or an object of a bucket with the bucket's own parameters.
func openFileTable(ctx context.Context, e *enrichment, logger *slog.Logger) (enrich.Table, error) {
	bucketsOwn := map[string][]string{"s3": {"region", "endpoint"}, "gs": {"endpoint"}, "azblob": {"account", "endpoint"}}[e.scheme]
	if err := e.only(append([]string{"key", "format", "reload"}, bucketsOwn...)...); err != nil {
		return nil, err
	}
	o := file.Options{Format: e.params.Get("format"), Key: e.params.Get("key"), Select: e.query.Select, Logger: logger}
	o.ValidFrom, o.ValidTo = e.validity()
	if text := e.params.Get("reload"); text != "" {
		var err error
		if o.Reload, err = positive(text); err != nil {
			return nil, settingf(enrichSetting, "%s: reload=%s: %v", e.query.Name, text, err)
		}
	}
	if e.scheme == "file" {
		o.Path = e.localPath()
		table, err := file.New(ctx, o)
		if err != nil {
			return nil, err
		}
		return table, nil
	}
	folder, name := path.Split(e.location.rest)
	theirs := url.Values{}
	for _, p := range bucketsOwn {
		if e.params.Has(p) {
			theirs.Set(p, e.params.Get(p))
		}
	}
	b, err := openBucket(ctx, enrichSetting, strings.TrimSuffix(e.scheme+"://"+strings.TrimSuffix(folder, "/")+"?"+theirs.Encode(), "?"))
	if err != nil {
		return nil, err
	}
	o.Bucket, o.Path = b, name
	table, err := file.New(ctx, o)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return &inBucket{table, b}, nil
}

// inBucket is a file table that closes its bucket too.
type inBucket struct {
	*file.Table
	bucket bucket.Bucket
}

// Close implements enrich.Table.
func (t *inBucket) Close() error { return errors.Join(t.Table.Close(), t.bucket.Close()) }

// openDynamoDB opens dynamodb://TABLE?key=&sort=&consistent=&region=&endpoint=.
func openDynamoDB(ctx context.Context, e *enrichment) (enrich.Table, error) {
	if err := errors.Join(e.only("key", "sort", "consistent", "region", "endpoint"), e.timeless()); err != nil {
		return nil, err
	}
	consistent, err := e.truth("consistent", false)
	if err != nil {
		return nil, err
	}
	return dynamodb.New(ctx, dynamodb.Options{Table: e.location.rest, Region: e.params.Get("region"), Endpoint: e.params.Get("endpoint"),
		Key: e.params.Get("key"), Sort: e.params.Get("sort"), Select: e.query.Select, Consistent: consistent})
}

// openDatastore opens datastore://PROJECT/KIND?database=&namespace=&ids=&eventual=&endpoint=.
func openDatastore(ctx context.Context, e *enrichment) (enrich.Table, error) {
	if err := errors.Join(e.only("database", "namespace", "ids", "eventual", "endpoint"), e.timeless()); err != nil {
		return nil, err
	}
	parts, err := e.place(2, "datastore://PROJECT/KIND")
	if err != nil {
		return nil, err
	}
	o := datastore.Options{Project: parts[0], Kind: parts[1], Database: e.params.Get("database"), Namespace: e.params.Get("namespace"),
		Select: e.query.Select, Endpoint: e.params.Get("endpoint")}
	if o.IDs, err = e.truth("ids", false); err != nil {
		return nil, err
	}
	if o.Eventual, err = e.truth("eventual", false); err != nil {
		return nil, err
	}
	return datastore.New(ctx, o)
}

// openFirestore opens firestore://PROJECT/COLLECTION?database=&endpoint=.
func openFirestore(ctx context.Context, e *enrichment) (enrich.Table, error) {
	if err := errors.Join(e.only("database", "endpoint"), e.timeless()); err != nil {
		return nil, err
	}
	project, collection, _ := strings.Cut(strings.Trim(e.location.rest, "/"), "/")
	if project == "" || collection == "" {
		return nil, settingf(enrichSetting, "%s: write firestore://PROJECT/COLLECTION", e.query.Name)
	}
	return firestore.New(ctx, firestore.Options{Project: project, Collection: collection, Database: e.params.Get("database"),
		Select: e.query.Select, Endpoint: e.params.Get("endpoint")})
}

// openAzureTables opens azuretables://ACCOUNT/TABLE?partition=&row=&endpoint=&account-key=&sas=.
func openAzureTables(ctx context.Context, e *enrichment) (enrich.Table, error) {
	if err := errors.Join(e.only("partition", "row", "endpoint", "account-key", "sas"), e.timeless()); err != nil {
		return nil, err
	}
	parts, err := e.place(2, "azuretables://ACCOUNT/TABLE")
	if err != nil {
		return nil, err
	}
	return azuretables.New(ctx, azuretables.Options{Account: parts[0], Table: parts[1], Endpoint: e.params.Get("endpoint"),
		Key: e.reveal("account-key"), SAS: e.reveal("sas"), Partition: e.params.Get("partition"), Row: e.params.Get("row"), Select: e.query.Select})
}

// openRedis opens redis://HOST:PORT[,…][/DB]?prefix=&kind=json|hash&cluster=&user=&password=; rediss:// is encrypted.
func openRedis(ctx context.Context, e *enrichment, logger *slog.Logger) (enrich.Table, error) {
	if err := errors.Join(e.only("prefix", "kind", "cluster", "user", "password"), e.timeless()); err != nil {
		return nil, err
	}
	hosts, db, _ := strings.Cut(e.location.rest, "/")
	o := redis.Options{Prefix: e.params.Get("prefix"), Kind: redis.Kind(e.params.Get("kind")), Username: e.reveal("user"),
		Password: e.reveal("password"), Select: e.query.Select, Logger: logger}
	if hosts != "" {
		o.Address = strings.Split(hosts, ",")
	}
	var err error
	if db != "" {
		if o.DB, err = strconv.Atoi(db); err != nil {
			return nil, settingf(enrichSetting, "%s: %q is not the number of a database", e.query.Name, db)
		}
	}
	if o.Cluster, err = e.truth("cluster", false); err != nil {
		return nil, err
	}
	if e.scheme == "rediss" {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return redis.New(ctx, o)
}

// validity returns the two fields of as-of=.
func (e *enrichment) validity() (from, to string) {
	if e.asOf == nil {
		return "", ""
	}
	return e.asOf[0], e.asOf[1]
}

// openPostgres opens postgres://HOST[:PORT]/DATABASE/[SCHEMA.]TABLE?key=&user=&password=&tls=&ca=.
func openPostgres(ctx context.Context, e *enrichment, logger *slog.Logger) (enrich.Table, error) {
	if err := e.only("key", "user", "password", "tls", "ca"); err != nil {
		return nil, err
	}
	parts, err := e.place(3, "postgres://HOST[:PORT]/DATABASE/TABLE")
	if err != nil {
		return nil, err
	}
	from, to := e.validity()
	return postgres.New(ctx, postgres.Options{Address: parts[0], Database: parts[1], Table: parts[2], Key: e.params.Get("key"),
		User: e.reveal("user"), Password: e.reveal("password"), TLS: e.params.Get("tls"), CAFile: e.params.Get("ca"),
		Select: e.query.Select, ValidFrom: from, ValidTo: to, MaxConns: e.cache.Calls, Logger: logger})
}

// openMySQL opens mysql://HOST[:PORT]/DATABASE/TABLE?key=&user=&password=&tls=&ca=.
func openMySQL(ctx context.Context, e *enrichment, logger *slog.Logger) (enrich.Table, error) {
	if err := e.only("key", "user", "password", "tls", "ca"); err != nil {
		return nil, err
	}
	parts, err := e.place(3, "mysql://HOST[:PORT]/DATABASE/TABLE")
	if err != nil {
		return nil, err
	}
	from, to := e.validity()
	return mysql.New(ctx, mysql.Options{Address: parts[0], Database: parts[1], Table: parts[2], Key: e.params.Get("key"),
		User: e.reveal("user"), Password: e.reveal("password"), TLS: e.params.Get("tls"), CAFile: e.params.Get("ca"),
		Select: e.query.Select, ValidFrom: from, ValidTo: to, MaxConns: e.cache.Calls, Logger: logger})
}

// openHTTPTable opens http(s)://HOST/PATH/{key}?rows=&key=&batch=&probe=&authorization=&concurrency=; other
// parameters are the interface's own, and so is key= when {key} says where the key goes.
func openHTTPTable(ctx context.Context, e *enrichment) (enrich.Table, error) {
	if err := e.timeless(); err != nil {
		return nil, err
	}
	batch, err := e.number("batch")
	if err != nil {
		return nil, err
	}
	concurrency, err := e.number("concurrency")
	if err != nil {
		return nil, err
	}
	o := enrichhttp.Options{Rows: e.params.Get("rows"), Batch: batch, Concurrency: concurrency, Probe: e.params.Get("probe"), Select: e.query.Select}
	if authorization := e.reveal("authorization"); authorization != "" {
		o.Header = nethttp.Header{"Authorization": {authorization}}
	}
	theirs, ours := url.Values{}, []string{"rows", "key", "batch", "probe", "authorization", "concurrency"}
	single := strings.Contains(e.location.raw, "{key}")
	if single {
		ours = slices.DeleteFunc(ours, func(name string) bool { return name == "key" })
	} else {
		o.Key = e.params.Get("key")
	}
	for name, values := range e.revealed() {
		if !slices.Contains(ours, name) {
			theirs[name] = values
		}
	}
	o.URL = e.scheme + "://" + e.location.rest
	if len(theirs) > 0 {
		o.URL += "?" + strings.ReplaceAll(theirs.Encode(), "%7Bkey%7D", "{key}")
	}
	return enrichhttp.New(ctx, o)
}

// tableAccess lists the permissions that the tables of enrichments need.
func tableAccess(enrichments []enrichment) []string {
	var lines []string
	for i := range enrichments {
		e := &enrichments[i]
		where := strings.Trim(e.location.rest, "/")
		for _, name := range slices.Sorted(maps.Keys(e.params)) {
			if value := e.params.Get(name); secret.IsReference(value) {
				lines = append(lines, secret.Access(value))
			}
		}
		switch e.scheme {
		case "file":
			lines = append(lines, "read "+absolute(e.localPath()))
		case "s3":
			bucket, _, _ := strings.Cut(where, "/")
			lines = append(lines, "s3:GetObject on "+where+", s3:ListBucket on "+bucket)
		case "gs":
			lines = append(lines, "storage.objects.get, list on "+where)
		case "azblob":
			container, _, _ := strings.Cut(where, "/")
			lines = append(lines, "Storage Blob Data Reader on container "+container)
		case "dynamodb":
			lines = append(lines, "dynamodb:DescribeTable, dynamodb:BatchGetItem on table "+where)
		case "firestore":
			lines = append(lines, "datastore.entities.get on project "+strings.SplitN(where, "/", 2)[0]+" (role Cloud Datastore Viewer)")
		case "datastore":
			lines = append(lines, "datastore.entities.get on project "+strings.SplitN(where, "/", 2)[0]+" (role Cloud Datastore Viewer)")
		case "azuretables":
			lines = append(lines, "Storage Table Data Reader on table "+where)
		case "mysql":
			lines = append(lines, "SELECT on "+where)
		case "postgres":
			lines = append(lines, "SELECT on "+where+", USAGE on its schema")
		case "redis", "rediss":
			lines = append(lines, "+mget +hmget +hgetall on the keys of "+where)
		case "http", "https":
			lines = append(lines, "requests to "+e.scheme+"://"+where)
		}
	}
	return lines
}

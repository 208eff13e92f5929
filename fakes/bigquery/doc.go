// Package bigquery is an in-process Google BigQuery for tests and demonstrations, as far as writing goes:
// the Storage Write API over gRPC, and the REST calls that make and describe data sets and tables, both on
// one port, so unmodified clients drive it. It has the service's offsets, and fails on demand.
//
//	server := bigquery.New(bigquery.Options{})
//	address, err := server.Start() // 127.0.0.1:PORT, gRPC without TLS and plain HTTP
//	defer server.Close()
//	err = server.CreateTable(bigquery.Table{Name: "p.d.orders", Columns: []bigquery.Column{
//		{Name: "id", Type: "STRING", Mode: "REQUIRED"}, {Name: "total", Type: "NUMERIC"},
//	}})
//	writer, err := storage.NewBigQueryWriteClient(ctx, server.WriteOptions()...)
//	rows, err := server.Rows("p.d.orders") // what a query would see
//
// # The life of a row
//
// A row arrives in an AppendRows request, encoded as the connection's first request describes. Rows are
// decoded and held against the table; if one of them does not fit, the request is refused with an error
// for each such row and nothing of it is appended. An offset must be the stream's next one: below it the
// answer is ALREADY_EXISTS, above it OUT_OF_RANGE, and nothing is appended. What is appended is visible at
// once in a COMMITTED stream and in the default stream; in a BUFFERED one when FlushRows comes to its
// offset, once and for ever; in a PENDING one never, since BatchCommitWriteStreams is absent.
//
// On a table with a primary key the default stream takes rows with _CHANGE_TYPE, UPSERT or DELETE, and
// _CHANGE_SEQUENCE_NUMBER: one to four hexadecimal numbers with slashes between. Of the changes to a key
// the one with the largest sequence number counts, and of equal ones the last.
//
// # Faults
//
// [Server.Inject] arms a [Fault]: an error, a delay, a reply lost after the work was done, a connection
// that breaks or stalls. The [Injection] it returns counts the operations it hit, so that a test can
// assert that the fault it meant to cause happened. [Server.DropConnections] resets connections, and
// [Server.Expire] deletes a stream, as the service does some time after its last use.
//
// # What differs from the service
//
// Nothing is authenticated, billed or bound to a location, and no quota applies but [Options].MaxBytes.
// Flushing below what is flushed succeeds; the service is known to answer ALREADY_EXISTS at times, which
// a Fault can do. Queries, jobs, views, partitions, default values, Arrow, BatchCommitWriteStreams, and
// the packed encodings of NUMERIC (bytes), DATETIME and TIME (int64) are absent: send texts. A table's
// schema does not change.
package bigquery

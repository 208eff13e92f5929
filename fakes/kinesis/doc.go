// Package kinesis is an in-process Amazon Kinesis Data Streams for tests,
// demonstrations and benchmarks. It speaks the service's wire protocol (AWS
// JSON 1.1 over HTTP, event streams for enhanced fan-out), so an unmodified AWS
// SDK drives it, and it fails on demand, so that a client's recovery can be
// tested.
//
//	server := kinesis.New(kinesis.Options{})
//	endpoint, err := server.Start() // http://127.0.0.1:PORT
//	defer server.Close()
//	err = server.CreateStream("orders", 2)
//
//	client := awskinesis.New(awskinesis.Options{
//		Region:       "us-east-1",
//		BaseEndpoint: aws.String(endpoint),
//		Credentials:  credentials.NewStaticCredentialsProvider("any", "any", ""),
//	})
//
// # The life of a record
//
// A record arrives by PutRecord, PutRecords, [Server.Put] or [Server.PutBatch].
// The MD5 of its partition key, or its explicit hash key, is a 128-bit number;
// the open shard whose range holds that number takes the record, gives it the
// shard's next sequence number and the time of arrival, and copies its bytes to
// the end of an append-only chunk. A reader asks GetShardIterator for a place,
// and GetRecords copies everything from there on into one reply, without a lock
// for each record.
//
// A split or a merge closes the parents, which from then on only lose records,
// and opens children whose sequence numbers all lie above their parents'. A
// reader that passes a closed shard's last record is told so: NextShardIterator
// is null and ChildShards names where to go on. Here that happens in the very
// reply that carries the last record (the service may also send an empty one
// later; a reader that was at the tip when the shard closed sees that form here
// too), so that a client must handle both.
//
// Records disappear, oldest first, when they are older than the retention
// period, when [Server.Trim] says so, or when the stream holds more than
// [Options.MaxBytes]. A closed shard whose records have all expired vanishes
// from ListShards, as in the service.
//
// # Faults
//
// [Server.Inject] arms a [Fault]: an error, a delay, a reply lost after the work
// was done, a connection reset in the middle of a body, a PutRecords call of
// which some entries fail, an empty read. The [Injection] it returns counts the
// calls it hit, so that a test can assert that the fault it meant to cause
// happened. [Server.ExpireIterators] kills every iterator handed out so far, and
// [Options.EnforceLimits] applies the service's limits per shard.
//
// [Aggregate] makes the data of a record as the Kinesis Producer Library packs
// several into one.
//
// # Two faults of the SDK for Go
//
// Both were seen with aws-sdk-go-v2 v1.47.7 and smithy-go v1.28.8 against this
// server, and are not its doing. On loopback about one request in ten loses its
// connection, and sometimes its reply; the default retryer hides that, and
// [DetachBody] avoids it. And all SubscribeToShard streams of one client share a
// decoder without a lock: give each subscription a client or a protocol
// (Options.Protocol) of its own.
//
// # Virtual time
//
// The server reads the clock only through package time. In a testing/synctest
// bubble use [Server.Client] in place of [Server.Start]: its connections are
// in-memory pipes, which let virtual time advance, and still carry the whole
// HTTP conversation.
//
// # What differs from the service
//
// Nothing is authenticated. Direct calls ([Server.Put] and its neighbours) are
// never throttled. The number of bytes a stream keeps is bounded. Encryption,
// tags, resource policies, enhanced monitoring and account settings are absent
// (UnknownOperationException), and so is the CBOR encoding that some other SDKs
// prefer (set AWS_CBOR_DISABLE for the Java one). Hash ranges, limits, error
// types and sequence numbers follow the service's documentation; the layout of
// a sequence number follows what the Kinesis Client Library checks.
package kinesis

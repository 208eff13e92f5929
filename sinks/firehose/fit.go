package firehose

import (
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/firehose/types"
)

// maxTakenApart is how many rows of a record a delivery stream with multi record deaggregation takes apart.
// Of more it takes none (API reference, PutRecordBatch).
const maxTakenApart = 500

// fit says how many rows a delivery stream lets a record hold, 0 for any number, and why when it is one.
// Buckets, and Redshift, which copies from one, receive records joined: there a row is a line, whatever
// record it came in. All others take a record for one row.
func fit(d *types.DeliveryStreamDescription) (rows int, why string) {
	if d == nil || len(d.Destinations) == 0 {
		return 0, ""
	}
	to := &d.Destinations[0] // there is never more than one (API reference)
	var processing *types.ProcessingConfiguration
	partitioned := false
	switch {
	case to.ExtendedS3DestinationDescription != nil: // a plain S3 description stands beside it
		s3 := to.ExtendedS3DestinationDescription
		processing = s3.ProcessingConfiguration
		partitioned = s3.DynamicPartitioningConfiguration != nil && aws.ToBool(s3.DynamicPartitioningConfiguration.Enabled)
	case to.RedshiftDestinationDescription != nil:
		processing = to.RedshiftDestinationDescription.ProcessingConfiguration
	case to.S3DestinationDescription != nil:
	default:
		return 1, "its destination takes a record for one row"
	}
	takenApart, transformed := false, false
	if processing != nil && aws.ToBool(processing.Enabled) {
		for i := range processing.Processors {
			switch p := &processing.Processors[i]; p.Type {
			case types.ProcessorTypeLambda:
				transformed = true
			case types.ProcessorTypeRecordDeAggregation:
				takenApart = splitsLines(p)
			}
		}
	}
	switch {
	case takenApart:
		return maxTakenApart, ""
	case partitioned:
		return 1, "it partitions by a record's contents, without multi record deaggregation"
	case transformed:
		return 1, "a function transforms its records, one by one"
	}
	return 0, ""
}

// splitsLines reports whether a deaggregating processor makes rows of lines.
func splitsLines(p *types.Processor) bool {
	kind, delimiter := "", ""
	for _, v := range p.Parameters {
		switch v.ParameterName {
		case types.ProcessorParameterNameSubRecordType:
			kind = aws.ToString(v.ParameterValue)
		case types.ProcessorParameterNameDelimiter:
			delimiter = aws.ToString(v.ParameterValue)
		}
	}
	if strings.EqualFold(kind, "JSON") {
		return true
	}
	text, err := base64.StdEncoding.DecodeString(delimiter)
	return err == nil && string(text) == "\n"
}

// checkPack refuses what Options.Pack may not be.
func checkPack(pack int) error {
	if pack > maxRecord || pack < Off {
		return fmt.Errorf("firehose: pack %d: a record holds at most %d bytes", pack, maxRecord)
	}
	return nil
}

// shape decides how the rows of a delivery stream are packed: as is asked for, and otherwise as the
// delivery stream lets them be. Without a description, nobody knows that it would not.
func (p *putter) shape(pack int, d *types.DeliveryStreamDescription) {
	rows, why := fit(d)
	p.most, p.rows = pack, rows
	if rows == 1 {
		p.rows = 0
	}
	switch {
	case pack == 0 && rows == 1:
		p.most = Off
		p.logger.Info("every row is a record of its own, billed as 5 KB or more: "+why, "stream", p.stream)
	case pack == 0:
		p.most = DefaultPack
	case pack > 0 && rows == 1:
		p.logger.Warn("rows are packed as asked for (pack), where they should not be: "+why, "stream", p.stream)
	}
}

// packer puts lines into records.
type packer struct {
	most int // bytes of a record that holds more than one line; Off: none does
	rows int // lines of a record at most; 0: any number
	open entry
	done []entry
}

func (p *putter) packer() packer { return packer{most: p.most, rows: p.rows} }

func (p *packer) add(at int, line []byte) {
	if n := len(p.open.at); n > 0 && (len(p.open.data)+len(line) > p.most || n == p.rows) {
		p.done, p.open = append(p.done, p.open), entry{}
	}
	p.open.data, p.open.at = append(p.open.data, line...), append(p.open.at, at)
}

// entries returns the records, and ends the packer.
func (p *packer) entries() []entry {
	if len(p.open.at) > 0 {
		p.done = append(p.done, p.open)
	}
	return p.done
}

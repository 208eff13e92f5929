package checkpointtest_test

import (
	"testing"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/checkpoint/checkpointtest"
)

func TestMemory(t *testing.T) {
	checkpointtest.Suite(t, checkpointtest.Options{Virtual: true, Open: func(*testing.T) bucket.Bucket { return bucket.Memory() }})
}

func TestFolder(t *testing.T) {
	// A folder waits for the disk only, which virtual time waits for too.
	checkpointtest.Suite(t, checkpointtest.Options{Virtual: true, Every: 7, Seeds: 2, Open: func(t *testing.T) bucket.Bucket {
		b, err := bucket.Folder(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}})
}

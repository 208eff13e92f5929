package blob

import (
	"errors"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millstream/millstream/bucket"
	"github.com/millstream/millstream/sinks"
)

func TestPublisher(t *testing.T) {
	b := bucket.Memory()
	p, err := NewPublisher(b, PublisherOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{"orders", "orders", "a/b", ""} {
		if err := p.Publish(topic, message.NewMessage("1", []byte(`{"n":1}`)), message.NewMessage("2", []byte(`{"n":2}`))); err != nil {
			t.Fatal(err)
		}
	}
	folders := make(map[string]int)
	for name, text := range filesIn(t, b) {
		folders[name[:strings.LastIndexByte(name, '/')+1]]++
		if text != "{\"n\":1}\n{\"n\":2}\n" {
			t.Errorf("%s: %q", name, text)
		}
	}
	if len(folders) != 3 || folders["orders/"] != 2 || folders["a/b/"] != 1 || folders[""] != 1 {
		t.Error(folders)
	}
	if err := p.Publish("x", message.NewMessage("good", []byte(`{}`)), message.NewMessage("bad", []byte("a\nb"))); err == nil || !strings.Contains(err.Error(), "1 of 2 messages cannot be written, message bad since") {
		t.Error(err)
	}
	if err := p.Publish("../x", message.NewMessage("1", []byte(`{}`))); err == nil {
		t.Error("a topic outside the bucket passes")
	}
	if err := p.Publish("nothing"); err != nil {
		t.Error(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Publish("x", message.NewMessage("1", nil)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if p, err = NewPublisher(b, PublisherOptions{Marshal: sinks.Envelope}); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish("whole", message.NewMessage("7", []byte("any\nbytes"))); err != nil {
		t.Error(err)
	}
	if _, err := NewPublisher(b, PublisherOptions{Files: Options{Format: "xml"}}); err == nil {
		t.Error("a format that there is not passes")
	}
}

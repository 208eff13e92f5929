package fault_test

import (
	"fmt"
	"testing"

	"github.com/millstream/millstream/fakes/fault"
)

// Which of ten calls a fault hits.
func TestTake(t *testing.T) {
	for want, times := range map[string]fault.Times{
		"[1]": {}, "[3 4]": {Skip: 2, Most: 2}, "[1 2 3 4 5 6 7 8 9 10]": {Most: -1}, "[5 8]": {Skip: 2, Every: 3, Most: 2}, "[3 6 9]": {Every: 3, Most: -1},
	} {
		var l fault.List[string]
		i := l.Inject("a", times)
		l.Inject("b", fault.Times{})
		var hit []int
		for n := 1; n <= 10; n++ {
			if l.Take(func(f *string) bool { return *f == "a" }) == "a" {
				hit = append(hit, n)
			}
		}
		done := false
		select {
		case <-i.Done():
			done = true
		default:
		}
		if fmt.Sprint(hit) != want || i.Hits() != len(hit) || done != (times.Most >= 0) {
			t.Errorf("%+v hits %v, want %s; %d, %t", times, hit, want, i.Hits(), done)
		}
		i.Stop()
		i.Stop()
		<-i.Done()
		if l.Take(func(f *string) bool { return *f == "a" }) != "" || !l.Any() {
			t.Errorf("%+v: a fault that was stopped hits", times)
		}
	}
}

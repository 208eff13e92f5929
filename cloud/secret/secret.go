// Package secret reads secrets from where they are kept, and keeps them out of what is printed.
//
// A setting holds a reference, such as aws-sm://orders/db?field=password, which everybody may see.
// [Resolve] reads the secret behind it once, when a program starts. The [Secret] that it returns prints
// as [redacted] wherever it is printed; [Secret.Reveal], called where a client is given the value, is
// the only way to it. A secret that changes is read again by the next start.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Secret is a value that does not show itself: every verb of fmt, encoding/json, text and slog print
// [redacted]. The zero value is an empty secret. It may be copied and used concurrently.
type Secret struct {
	value *string // behind a pointer, because fmt prints what unexported fields hold without asking
}

// New returns a secret with a value.
func New(value string) Secret { return Secret{&value} }

// Reveal returns the value itself.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// String implements fmt.Stringer.
func (Secret) String() string { return redacted }

// Format implements fmt.Formatter, for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText implements encoding.TextMarshaler, and so what JSON shows.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

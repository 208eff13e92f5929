package enrich

import (
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Middleware enriches the messages of a plain Watermill router, one record a message, before their handler
// sees them. key and set are as for With; an error of set, and a key that is not answered, is the handler's
// error, so that the router's other middlewares decide about the message. Put a *Cache before the backend:
// messages that are handled at once then share its calls.
func Middleware[K comparable, V any](lookup Lookup[K, V], key func(*message.Message) (K, bool), set func(m *message.Message, value V, found bool) error) message.HandlerMiddleware {
	return func(next message.HandlerFunc) message.HandlerFunc {
		return func(m *message.Message) ([]*message.Message, error) {
			var value V
			found := false
			if k, ok := key(m); ok {
				values, err := lookup.Lookup(m.Context(), []K{k})
				var some *Failed[K]
				if errors.As(err, &some) && some.Keys[k] != nil {
					err = some.Keys[k]
				}
				if err != nil {
					return nil, err
				}
				value, found = values[k]
			}
			if err := set(m, value, found); err != nil {
				return nil, err
			}
			return next(m)
		}
	}
}

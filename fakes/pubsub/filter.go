package pubsub

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// filter reports whether a subscription takes a message with these attributes.
type filter func(attributes map[string]string) bool

// maxFilter is the longest filter, in bytes.
const maxFilter = 256

// parseFilter reads the filters of https://cloud.google.com/pubsub/docs/subscription-message-filter:
//
//	attributes:KEY   attributes.KEY = "VALUE"   attributes.KEY != "VALUE"   hasPrefix(attributes.KEY, "VALUE")
//
// joined by NOT (or -), AND, OR and parentheses; AND and OR do not mix without these. Nothing is no
// filter, which is nil.
func parseFilter(text string) (filter, error) {
	if text == "" {
		return nil, nil
	}
	if len(text) > maxFilter {
		return nil, fmt.Errorf("%d bytes: at most %d are allowed", len(text), maxFilter)
	}
	tokens, err := filterTokens(text)
	if err != nil {
		return nil, err
	}
	p := &filterParser{tokens: tokens}
	f, err := p.expression()
	if err == nil && p.peek() != "" {
		err = fmt.Errorf("unexpected %s", p.peek())
	}
	return f, err
}

// filterTokens splits a filter into words, quoted strings and signs.
func filterTokens(text string) (tokens []string, err error) {
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			i++
		case c == '"':
			quoted, err := strconv.QuotedPrefix(text[i:])
			if err != nil {
				return nil, fmt.Errorf("a string without an end: %s", text[i:])
			}
			tokens, i = append(tokens, quoted), i+len(quoted)
		case strings.HasPrefix(text[i:], "!="):
			tokens, i = append(tokens, "!="), i+2
		case strings.IndexByte("():.,=-", c) >= 0:
			tokens, i = append(tokens, text[i:i+1]), i+1
		case isWord(c):
			from := i
			for i < len(text) && (isWord(text[i]) || text[i] == '-') {
				i++
			}
			tokens = append(tokens, text[from:i])
		default:
			return nil, fmt.Errorf("unexpected %q", c)
		}
	}
	return tokens, nil
}

func isWord(c byte) bool {
	return c == '_' || c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

type filterParser struct{ tokens []string }

// peek returns the next token, empty at the end.
func (p *filterParser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0]
}

func (p *filterParser) next() string {
	t := p.peek()
	if t != "" {
		p.tokens = p.tokens[1:]
	}
	return t
}

func (p *filterParser) expect(want string) error {
	if got := p.next(); got != want {
		return fmt.Errorf("%q in place of %q", got, want)
	}
	return nil
}

// expression reads terms that are joined by one kind of operator.
func (p *filterParser) expression() (filter, error) {
	left, err := p.term()
	operator := p.peek()
	for err == nil && (p.peek() == "AND" || p.peek() == "OR") {
		if p.next() != operator {
			return nil, errors.New("AND and OR without parentheses")
		}
		before := left
		var right filter
		if right, err = p.term(); err != nil {
			break
		}
		if operator == "AND" {
			left = func(a map[string]string) bool { return before(a) && right(a) }
		} else {
			left = func(a map[string]string) bool { return before(a) || right(a) }
		}
	}
	return left, err
}

func (p *filterParser) term() (filter, error) {
	switch t := p.next(); t {
	case "NOT", "-":
		f, err := p.term()
		return func(a map[string]string) bool { return !f(a) }, err
	case "(":
		f, err := p.expression()
		if err == nil {
			err = p.expect(")")
		}
		return f, err
	case "hasPrefix":
		return p.hasPrefix()
	case "attributes":
		if p.peek() == ":" {
			p.next()
			name, err := p.name()
			return func(a map[string]string) bool { _, has := a[name]; return has }, err
		}
		name, err := p.field()
		if err != nil {
			return nil, err
		}
		operator := p.next()
		if operator != "=" && operator != "!=" {
			return nil, fmt.Errorf("%q in place of = or !=", operator)
		}
		value, err := p.value()
		return func(a map[string]string) bool { return (a[name] == value) == (operator == "=") }, err
	default:
		return nil, fmt.Errorf("%q in place of attributes", t)
	}
}

func (p *filterParser) hasPrefix() (filter, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	if err := p.expect("attributes"); err != nil {
		return nil, err
	}
	name, err := p.field()
	if err == nil {
		err = p.expect(",")
	}
	if err != nil {
		return nil, err
	}
	prefix, err := p.value()
	if err == nil {
		err = p.expect(")")
	}
	return func(a map[string]string) bool {
		value, has := a[name]
		return has && strings.HasPrefix(value, prefix)
	}, err
}

// field reads .KEY.
func (p *filterParser) field() (string, error) {
	if err := p.expect("."); err != nil {
		return "", err
	}
	return p.name()
}

// name reads a key, a word or a string.
func (p *filterParser) name() (string, error) {
	t := p.peek()
	if t == "" || t[0] != '"' && !isWord(t[0]) {
		return "", fmt.Errorf("%q in place of an attribute's name", t)
	}
	if t[0] == '"' {
		return p.value()
	}
	return p.next(), nil
}

// value reads a string.
func (p *filterParser) value() (string, error) {
	t := p.next()
	if t == "" || t[0] != '"' {
		return "", fmt.Errorf("%q in place of a string", t)
	}
	return strconv.Unquote(t)
}

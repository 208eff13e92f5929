package query

import (
	"errors"
	"regexp"
	"strings"
)

var errUnbalanced = errors.New("a quote or a bracket is not closed")

// splitList cuts text at the commas that stand outside quotes and brackets, and trims the parts. It
// knows the three quotes of the expression language, and nothing else of it.
func splitList(text string) ([]string, error) {
	var parts []string
	depth, from := 0, 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '"', '\'', '`':
			end := closingQuote(text, i)
			if end < 0 {
				return nil, errUnbalanced
			}
			i = end
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth--; depth < 0 {
				return nil, errUnbalanced
			}
		case ',':
			if depth == 0 {
				parts = append(parts, strings.TrimSpace(text[from:i]))
				from = i + 1
			}
		}
	}
	if depth != 0 {
		return nil, errUnbalanced
	}
	return append(parts, strings.TrimSpace(text[from:])), nil
}

// closingQuote returns the index of the quote that closes the one at i, or -1.
func closingQuote(text string, i int) int {
	quote := text[i]
	for i++; i < len(text); i++ {
		switch {
		case text[i] == quote:
			return i
		case text[i] == '\\' && quote != '`':
			i++
		}
	}
	return -1
}

var asName = regexp.MustCompile(`(?is)^(.*\S)\s+as\s+([A-Za-z_][A-Za-z0-9_]*)$`)

// splitName separates "expression as name". The name is empty when there is none.
func splitName(item string) (expression, name string) {
	if m := asName.FindStringSubmatch(item); m != nil {
		return m[1], m[2]
	}
	return item, ""
}

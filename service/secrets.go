package service

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/millstream/millstream/cloud/secret"
)

// remedy says how to give a secret.
const remedy = "as a reference to where it is kept: aws-sm://NAME, ssm:///PATH, gcp-sm://PROJECT/NAME, azure-kv://VAULT/NAME, file:///PATH or env://NAME"

// resolveSecrets reads the secrets that a location's parameters refer to, each within 10 s, and refuses
// a location with one in clear, which would show in process lists and histories. The parameters and raw,
// which messages quote, keep the references: a driver's options get a value from reveal or revealed.
func resolveSecrets(ctx context.Context, l location) (location, error) {
	if err := l.refuseClear(); err != nil {
		return l, err
	}
	l.secrets = map[string]secret.Secret{}
	for _, name := range slices.Sorted(maps.Keys(l.params)) {
		values := l.params[name]
		if !slices.ContainsFunc(values, secret.IsReference) {
			continue
		}
		if len(values) > 1 {
			return l, settingf(l.setting, "parameter %s is a secret, and given twice", name)
		}
		value, err := secret.Resolve(ctx, values[0])
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission): // waiting brings no file
			return l, settingf(l.setting, "%s: %v", name, err)
		case err != nil:
			return l, unusable(l.setting, err, "%s: %v", name)
		}
		l.secrets[name] = value
	}
	return l, nil
}

// reveal returns a parameter's value, the secret's own where it is one. It is for a driver's options,
// and for nothing that is printed.
func (l location) reveal(name string) string {
	if s, is := l.secrets[name]; is {
		return s.Reveal()
	}
	return l.params.Get(name)
}

// revealed returns all parameters as reveal does.
func (l location) revealed() url.Values {
	out := maps.Clone(l.params)
	for name, s := range l.secrets {
		out[name] = []string{s.Reveal()}
	}
	return out
}

// refuseClear refuses a password or another secret that is written into the location. What it returns
// shows nothing of the location but its kind.
func (l location) refuseClear() error {
	if user, rest, found := strings.Cut(l.rest, ":"); found && l.scheme != "file" && !strings.ContainsAny(user, "/@") {
		if password, _, found := strings.Cut(rest, "@"); found && password != "" && !port.MatchString(rest) {
			return settingf(l.setting, "%s://: has a password in it: leave USER:PASSWORD@ out, and give it %s, in a parameter such as password=aws-sm://NAME or password=file:///PATH", l.scheme, remedy)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.params)) {
		for _, value := range l.params[name] {
			if namesSecret(name) && value != "" && !secret.IsReference(value) {
				return settingf(l.setting, "%s://: %s is given in clear: give it %s, as in %s=aws-sm://NAME or %s=file:///PATH", l.scheme, name, remedy, name, name)
			}
		}
	}
	return nil
}

var (
	// port is what follows a host's colon, and is no password then, whatever @ comes later.
	port = regexp.MustCompile(`^[0-9]+([/,]|$)`)
	// secretWord ends a parameter's name that says what is secret, without its separators.
	secretWord = regexp.MustCompile(`(password|passwd|passphrase|secret|token|credentials?|authorization|signature|connectionstring|(account|access|api|secret|shared|private|auth|signing|encryption|subscription)key)$`)
	// secretAlone is the last word of such a name, too short to be looked for in others.
	secretAlone = regexp.MustCompile(`(^|[^a-z0-9])(pass|pwd|sas|sig|auth|pin|dsn|jwt)$`)
	separators  = strings.NewReplacer("-", "", "_", "", ".", "", " ", "")
)

// namesSecret tells a parameter whose value nobody should see by its name. A plain key is the column or
// field that a row is looked up by.
func namesSecret(parameter string) bool {
	name := strings.ToLower(parameter)
	return secretWord.MatchString(separators.Replace(name)) || secretAlone.MatchString(name)
}

var (
	parameterStart = regexp.MustCompile(`[?&]([^=&?\s]+)=`)
	valueEnd       = regexp.MustCompile(`[&\s]|$`)
	// An authority with a password, after what looks like one: references, and a host with its port.
	authority = regexp.MustCompile(`\b(?:aws-sm|ssm|gcp-sm|azure-kv|file|env)://|://[^/@\s:?]*:[0-9]+(?:[/,?&\s]|$)|(://[^/@\s:?]*:)[^\s?]+@`)
)

// Redact returns a text with every password in a URL, and every value of a parameter whose name says
// that it is secret, replaced by [redacted]. References to secrets are left as they are.
func Redact(text string) string {
	text = authority.ReplaceAllStringFunc(text, func(found string) string {
		before := authority.FindStringSubmatch(found)[1]
		if before == "" {
			return found
		}
		return before + "[redacted]@"
	})
	var out strings.Builder
	for {
		at := parameterStart.FindStringSubmatchIndex(text)
		if at == nil {
			return out.String() + text
		}
		name, rest := text[at[2]:at[3]], text[at[1]:]
		out.WriteString(text[:at[1]])
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		end := valueEnd.FindStringIndex(rest)[0]
		value, err := url.QueryUnescape(rest[:end])
		if namesSecret(name) && end > 0 && (err != nil || !secret.IsReference(value)) {
			out.WriteString("[redacted]")
			rest = rest[end:]
		}
		text = rest
	}
}

package query

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
)

// SettingError says which setting cannot be, why, and what to write instead, in one line.
type SettingError struct {
	Setting string // the flag: "--where"
	Problem string
	Fix     string
}

func (e *SettingError) Error() string {
	if e.Fix == "" {
		return e.Setting + ": " + e.Problem
	}
	return e.Setting + ": " + e.Problem + ": " + e.Fix
}

// refuse makes a SettingError.
func refuse(setting, fix, problem string, args ...any) *SettingError {
	oneLine := strings.NewReplacer("\n", " ", "\r", " ", "\t", " ")
	return &SettingError{Setting: setting, Problem: oneLine.Replace(fmt.Sprintf(problem, args...)), Fix: oneLine.Replace(fix)}
}

// didYouMean returns `did you mean "x"?` for the candidate nearest to word, or otherwise.
func didYouMean(word string, candidates []string, otherwise string) string {
	if s := nearest(word, candidates); s != "" {
		return fmt.Sprintf("did you mean %q?", s)
	}
	return otherwise
}

// nearest returns the candidate that differs least from word, if it differs little; of equals the
// first in alphabetical order.
func nearest(word string, candidates []string) string {
	best, at := "", max(len(word)/3, 1)+1
	sorted := slices.Clone(candidates)
	slices.Sort(sorted)
	for _, c := range sorted {
		if c == word || len(c) > len(word)+at || len(word) > len(c)+at {
			continue
		}
		if d := levenshtein.ComputeDistance(strings.ToLower(word), strings.ToLower(c)); d < at && d < len(c) {
			best, at = c, d
		}
	}
	return best
}

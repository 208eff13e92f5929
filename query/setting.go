package query

import (
	"fmt"
	"slices"
	"strings"
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
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < at && d < len(c) {
			best, at = c, d
		}
	}
	return best
}

// distance is how many insertions, deletions, replacements and swaps of neighbours turn a into b.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

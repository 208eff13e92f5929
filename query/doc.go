// Package query turns the flags of the ready-made service into a pipeline: conditions, --select, keys,
// times, windows and aggregates, written as text and compiled once.
//
// # The life of a record
//
// [Compile] reads every flag, collects the field paths that their expressions name, and gives each a
// slot. A lane's decoder then takes a record through
//
//	scan         one pass over the bytes puts the named fields into their slots (package fields)
//	key, time    from the slots; without one the record is dead-lettered
//	--where      false: filtered
//	--require    false: dead-lettered, with the expression as the reason
//	--select     without a window: the row, one JSON object on one line
//	arguments    with a window: of the aggregates, checked for their types
//
// all while the record is in the processor's cache. What is left of it is an [Event]: two or three
// verdicts, and the arguments or the row. The engine asks for the verdicts in its own order, folds
// the event into package windows' columns, and hands the totals back to be encoded.
//
// # Expressions
//
// The language is that of github.com/expr-lang/expr, whose parser and machine are used. Its built-in
// functions are off, so that fields may be called type, count or len. What can be called: len, lower,
// upper, trim, split, replace, int, float, string, abs, round, floor, ceil, min, max, and on arrays
// all, any, none, one, filter, map, count, sum. A field is a, a.b or a["b"]; $env["user-agent"] names
// a field that is no identifier.
//
// Fields have the types of JSON. An absent field and null are nil. nil is equal to nothing but nil,
// neither less nor greater than anything, and false as a condition; arithmetic and functions of nil
// give nil, which aggregates skip. Integers are exact within int64; what goes beyond is a float. A
// string that holds a number counts as the number in arithmetic and when compared by order with a
// number; == and in convert nothing, so "5" == 5 is false (5 == 5.0 is true). + of two strings joins
// them. An expression that has no answer for a record, such as "abc" > 5, sends that record to the
// dead letter with the expression and the values.
//
// --where and --require see the record as it came. --key, --time and the aggregates see it as
// --select leaves it: a selected name hides the record's field of that name, and without a * there is
// nothing else (but --time may name a field of the record that --select drops).
//
// Common conditions, a comparison of a field with a literal and what and, or, not make of these, are
// answered from the slots without the machine and without allocating. See condition.go.
//
// # Times
//
// Without --time-layout a time is RFC 3339, or a Unix time, as a number or a string: below 10^11 in
// seconds, below 10^14 in milliseconds, else in microseconds. Times outside the years 1678 to 2261 are
// none. Without --time the arrival at the source is the time, if the source knows it.
//
// # Rows
//
// Strings are written with the escapes that JSON requires and no others: <, > and & stand for
// themselves. Values of the record keep their spelling (1.50 stays 1.50), on one line. Of equal keys of
// a record the last counts.
package query

package stream

import "reflect"

// Off switches a protocol rule off, by the name of its field in rules.
func (p *Pipeline[E, R]) Off(rule string) {
	f := reflect.ValueOf(&p.rules).Elem().FieldByName(rule)
	if !f.IsValid() {
		panic("no rule " + rule)
	}
	*(*bool)(f.Addr().UnsafePointer()) = true
}

// RuleNames are the rules that can be switched off.
func RuleNames() (names []string) {
	t := reflect.TypeFor[rules]()
	for i := range t.NumField() {
		names = append(names, t.Field(i).Name)
	}
	return names
}

package stream

type engine[E, R any] struct{}

package types

// Early is why nothing is decided about a message, and nobody is to blame: the class of refusals that
// cost nothing. What came too soon may be right.
type Early struct{ Reason string }

func (e *Early) Error() string { return e.Reason }

package telemetry

// Smesher is what a node serves at /smesher of its metrics listener: everything
// that the owner of a space asks. Times are RFC 3339 in UTC, amounts are smidges.
type Smesher struct {
	NodeID   string `json:"node_id"`
	Coinbase string `json:"coinbase"`
	// Dir is the identity's folder. Absent: the node has no other identity.
	Dir string `json:"dir,omitempty"`
	// Elsewhere tells that the key signs on another machine too: nothing is signed with it here.
	Elsewhere bool   `json:"elsewhere,omitempty"`
	Epoch     uint32 `json:"epoch"` // by the clock
	Layer     uint32 `json:"layer"`
	// LastATX is the publish epoch of the newest ATX that was published: it counts in the epoch
	// after. Absent: there is none.
	LastATX *uint32 `json:"last_atx,omitempty"`
	// Making is the publish epoch of the ATX in the making. Absent: there is none.
	Making *uint32     `json:"making,omitempty"`
	Step   SmesherStep `json:"step"`
	Poets  []PoetStep  `json:"poets"`
	// RegistrationCloses is when PoETs end to take registrations for the open round.
	RegistrationCloses string `json:"registration_closes"`
	// ProofDue is when the round that runs, or the next, ends.
	ProofDue string `json:"proof_due"`
	// PublishBy is until when an ATX of this epoch must be heard.
	PublishBy string `json:"publish_by"`
	// Slots are the layers of this epoch in which it may propose, ascending, one that has
	// several slots several times.
	Slots  []uint32 `json:"slots"`
	Earned Earned   `json:"earned"`
	// Others are the node's other identities. Absent: there is none.
	Others []Smesher `json:"others,omitempty"`
}

// PoetStep is how far the ATX in the making is with one PoET.
type PoetStep struct {
	URL     string `json:"url"`
	Round   string `json:"round,omitempty"`   // in which it took our challenge; empty: it has not
	Member  bool   `json:"member,omitempty"`  // it has told our place among the round's members
	Trouble string `json:"trouble,omitempty"` // why the last call failed, or its answer is not used
}

// Earned is what a smesher got in the layers that are applied here.
type Earned struct {
	Layers  int    `json:"layers"`
	Smidges uint64 `json:"smidges"`
	Last    uint32 `json:"last_layer"` // 0: none
}

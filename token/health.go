package token

// Health is what a card tells of its own state, for people who look after it. Numbers are holdfast.RetriesUnknown where
// the card does not tell.
type Health struct {
	Reader     string
	Serial     uint32
	Firmware   string
	FormFactor string // "USB-C Nano"; empty where the card does not tell

	PINRetries, PINTotal int
	PUKRetries, PUKTotal int

	// These say whether a secret is still the one every such card is sold with.
	DefaultPIN, DefaultPUK, DefaultManagementKey Answer

	// Attests says whether the card can prove that it generated a key.
	Attests bool

	// Free lists the slots that hold nothing.
	Free []string

	// Notes are sentences for people: what is wrong and what to do.
	Notes []string
}

// Answer is yes, no, or that the card does not tell.
type Answer uint8

// The answers.
const (
	Unknown Answer = iota
	No
	Yes
)

// String returns unknown, no or yes.
func (a Answer) String() string {
	switch a {
	case No:
		return "no"
	case Yes:
		return "yes"
	default:
		return "unknown"
	}
}

// note adds the sentences that follow from the fields.
func (h *Health) note() {
	add := func(when bool, text string) {
		if when {
			h.Notes = append(h.Notes, text)
		}
	}
	add(h.DefaultPIN == Yes, "the PIN is still the factory one: change it (ykman piv access change-pin)")
	add(h.DefaultPUK == Yes,
		"the PUK is still the factory one: whoever has the card can set a new PIN (ykman piv access change-puk)")
	add(h.DefaultManagementKey == Yes,
		"the management key is still the factory one: it is replaced when the first key is made, unless rotation is off")
	add(h.PINRetries == 0, "the PIN is blocked: set a new one with the PUK (ykman piv access unblock-pin)")
	add(h.PINRetries == 1, "one wrong PIN will block the card: only a person may try it now (holdfast backend unlock NAME)")
	add(h.PUKRetries == 0, "the PUK is blocked: when the PIN gets blocked too, the card has to be reset and its keys are lost")
	add(!h.Attests, "the card cannot attest keys, so there is no proof that they were generated in it")
	add(len(h.Free) == 0, "no slot is free: destroy a key before making another")
}

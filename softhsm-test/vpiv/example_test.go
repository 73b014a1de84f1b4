package vpiv_test

import (
	"fmt"

	"holdfast/softhsm-test/vpiv"
)

// A card answers command APDUs without any reader, and misbehaves when told to.
func ExampleCard() {
	card, err := vpiv.NewCard(vpiv.Config{Serial: 4711})
	if err != nil {
		fmt.Println(err)
		return
	}
	card.Transmit([]byte{0x00, 0xA4, 0x04, 0x00, 0x05, 0xA0, 0x00, 0x00, 0x03, 0x08}) // SELECT the PIV application
	fmt.Printf("version % X\n", card.Transmit([]byte{0x00, 0xFD, 0x00, 0x00}))
	card.Inject(vpiv.Fault{INS: 0xFD, Effect: vpiv.Answer(0x6D00)})
	fmt.Printf("version % X\n", card.Transmit([]byte{0x00, 0xFD, 0x00, 0x00}))
	// Output:
	// version 05 07 01 90 00
	// version 6D 00
}

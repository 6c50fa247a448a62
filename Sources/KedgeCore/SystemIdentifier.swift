/// The 64-bit number that `initdb` gave a database cluster; physical copies of a cluster share it.
package struct SystemIdentifier: Hashable, Sendable {
    package let number: UInt64

    package init(_ number: UInt64) { self.number = number }

    /// Parses 1 to 20 decimal digits. Nil for anything else.
    package init?(_ text: some StringProtocol) {
        guard (1...20).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            let number = UInt64(text)
        else { return nil }
        self.number = number
    }
}

extension SystemIdentifier: CustomStringConvertible {
    /// Decimal and unsigned, as `pg_controldata` prints it.
    package var description: String { String(number) }
}

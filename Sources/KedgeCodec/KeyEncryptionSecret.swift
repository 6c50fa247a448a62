// What a user keeps outside of the repository: a key file or a passphrase. Either opens slots (KeySlot.swift).
package import KedgeCore

/// A secret that wraps data keys.
package enum KeyEncryptionSecret: Sendable {
    /// 32 random bytes.
    case keyFile(Secret)
    case passphrase(Secret)

    /// How many bytes a key file's secret has.
    package static let keyFileBytes = 32

    /// The secret of a key file that holds `text`: one line of 64 hexadecimal digits. `what` names the file in errors,
    /// such as `key file "/etc/kedge/main.key"`. Throws `configuration`.
    package init(parsingKeyFile text: [UInt8], what: String) throws(KedgeError) {
        let line = KeyEncryptionSecret.withoutFinalNewline(text)
        let bytes = [UInt8](hex: String(decoding: line, as: UTF8.self))
        guard line.count == 64, let bytes else { throw KeyEncryptionSecret.unusableKeyFile(line, what) }
        self = .keyFile(Secret(bytes))
    }

    /// The secret of a file or command output that holds a passphrase: all bytes without the final newline. Throws
    /// `configuration` where nothing is left.
    package init(parsingPassphrase text: [UInt8], what: String) throws(KedgeError) {
        let line = KeyEncryptionSecret.withoutFinalNewline(text)
        guard !line.isEmpty else {
            throw KedgeError(
                .configuration, "cannot use \(what)", detail: "It is empty.", hint: "Put a passphrase there.")
        }
        self = .passphrase(Secret(line))
    }

    /// Whether both are the same secret of the same kind.
    package func isSame(as other: KeyEncryptionSecret) -> Bool {
        switch (self, other) {
        case (.keyFile(let own), .keyFile(let others)), (.passphrase(let own), .passphrase(let others)):
            own.bytes == others.bytes
        default: false
        }
    }

    /// A new key file's secret.
    package static func newKeyFile(random: any RandomSource) -> KeyEncryptionSecret {
        .keyFile(Secret(random.bytes(keyFileBytes)))
    }

    /// What a key file with this secret holds; nil for a passphrase.
    package var keyFileText: [UInt8]? {
        guard case .keyFile(let secret) = self else { return nil }
        return Array("\(secret.bytes.hex)\n".utf8)
    }

    /// Says what is wrong with the length of a key file, but never shows any of it.
    private static func unusableKeyFile(_ line: [UInt8], _ what: String) -> KedgeError {
        let isHex = line.allSatisfy {
            (0x30...0x39).contains($0) || (0x41...0x46).contains($0) || (0x61...0x66).contains($0)
        }
        let problem =
            switch line.count {
            case 0: "It is empty."
            case ..<64 where isHex: "It was cut: it holds \(line.count) of the 64 hexadecimal digits of a key."
            default: "It does not hold one line of 64 hexadecimal digits."
            }
        return KedgeError(
            .configuration, "cannot use \(what)", detail: problem,
            hint: "Put the saved copy back.  A new key does not open what the old one sealed; for a new repository, "
                + "\"kedge init --generate-key FILE\" makes one.")
    }

    private static func withoutFinalNewline(_ text: [UInt8]) -> [UInt8] {
        text.last == 0x0A ? text.dropLast() : text
    }
}

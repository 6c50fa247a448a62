// Proves that slots open with their secret and nothing else, and that nothing in a slot can be changed or made to do
// harm.
import KedgeCodec
import KedgeCore
import Testing

@Suite struct KeySlotTests {
    static let repository = RandomID(high: 1, low: 2)
    static let moment = Timestamp(secondsSince1970: 1_795_000_000)
    static let keyFile = KeyEncryptionSecret.keyFile(Secret(Fixture.noise(32)))
    static let passphrase = KeyEncryptionSecret.passphrase(Secret(Array("correct horse".utf8)))

    static func slot(_ secret: KeyEncryptionSecret, label: String = "main") throws(KedgeError) -> KeySlot {
        try KeySlot.wrap(
            Fixture.key, with: secret, repositoryID: repository, label: label, createdAt: moment,
            random: SeededRandom(5))
    }

    static func code(_ json: String, _ secret: KeyEncryptionSecret) -> ErrorCode? {
        errorOf { () throws(KedgeError) in
            try KeySlot(parsing: Array(json.utf8), what: "key slot \"x\"").unwrap(with: secret)
        }?.code
    }

    @Test("a slot opens with its secret", arguments: [keyFile, passphrase])
    func opens(_ secret: KeyEncryptionSecret) throws {
        let slot = try Self.slot(secret)
        #expect(slot.repositoryID == Self.repository && slot.createdAt == Self.moment.description)
        let read = try KeySlot(parsing: Array(slot.json.prettyText.utf8), what: "key slot")
        #expect(read == slot && read.accepts(secret))
        #expect(try read.unwrap(with: secret).secret.bytes == Fixture.key.secret.bytes)
    }

    @Test("another secret of either sort is the wrong key")
    func wrongSecret() throws {
        let otherFile = KeyEncryptionSecret.keyFile(Secret(Fixture.noise(32, seed: 9)))
        let otherText = KeyEncryptionSecret.passphrase(Secret(Array("correct horsf".utf8)))
        for (secret, wrong) in [
            (Self.keyFile, [otherFile, Self.passphrase]), (Self.passphrase, [otherText, Self.keyFile]),
        ] {
            let slot = try Self.slot(secret)
            for wrong in wrong {
                let error = errorOf { () throws(KedgeError) in try slot.unwrap(with: wrong) }
                #expect(error?.code == .keyWrong)
                #expect(error?.message == "cannot open key slot \"main\"")
            }
        }
    }

    @Test("no member can be changed without the slot refusing to open")
    func bound() throws {
        let text = try Self.slot(Self.keyFile).json.compactText
        #expect(Self.code(text, Self.keyFile) == nil)
        // Each digit of each value once: `kedge`, `format` and `cipher` have words that are compared.
        let bytes = Array(text.utf8)
        var changed = 0
        for index in bytes.indices where (0x30...0x39).contains(bytes[index]) {
            var copy = bytes
            copy[index] = bytes[index] == 0x31 ? 0x32 : 0x31
            let code = Self.code(String(decoding: copy, as: UTF8.self), Self.keyFile)
            #expect(code == .keyWrong || code == .formatUnknown || code == .damaged, "at \(index)")
            changed += 1
        }
        #expect(changed > 150)
        #expect(Self.code(text.replacing("\"main\"", with: "\"mail\""), Self.keyFile) == .keyWrong)
    }

    @Test("scrypt parameters out of range are refused, and the memory they need is said")
    func scryptLimits() throws {
        let text = try Self.slot(Self.passphrase).json.compactText
        for (changed, memory) in [
            ("\"n\":16384,\"r\":8,\"p\":1", "16 MiB"), ("\"n\":2097152,\"r\":8,\"p\":1", "2048 MiB"),
            ("\"n\":32769,\"r\":8,\"p\":1", "32 MiB"), ("\"n\":32768,\"r\":9,\"p\":1", "36 MiB"),
            ("\"n\":32768,\"r\":8,\"p\":2", "32 MiB"), ("\"n\":0,\"r\":8,\"p\":1", "0 MiB"),
            ("\"n\":18446744073709551615,\"r\":18446744073709551615,\"p\":18446744073709551615", "any amount"),
        ] {
            let hostile = text.replacing("\"n\":32768,\"r\":8,\"p\":1", with: changed)
            try #require(hostile != text)
            let error = errorOf { () throws(KedgeError) in
                try KeySlot(parsing: Array(hostile.utf8), what: "key slot \"x\"").unwrap(with: Self.passphrase)
            }
            #expect(error?.code == .damaged)
            #expect(error?.detail?.hasSuffix("They would need \(memory) of memory.") == true, "\(changed)")
        }
    }

    @Test("what no kedge writes is damage, what a newer one may write is an unknown format")
    func hostile() throws {
        let text = try Self.slot(Self.keyFile).json.compactText
        func code(_ old: String, _ new: String) throws -> ErrorCode? {
            let changed = text.replacing(old, with: new)
            try #require(changed != text)
            return Self.code(changed, Self.keyFile)
        }
        #expect(try code("\"0-draft\"", "\"2\"") == .formatUnknown)
        #expect(try code("\"aes-256-gcm\"", "\"rot13\"") == .formatUnknown)
        #expect(try code("\"hkdf-sha-256\"", "\"argon2id\"") == .formatUnknown)
        #expect(try code("\"key-slot\"", "\"pin\"") == .damaged)
        #expect(try code("\"sequence\":1", "\"sequence\":0") == .damaged)
        #expect(try code("\"sequence\":1", "\"sequence\":-1") == .damaged)
        #expect(try code("\"sequence\":1", "\"sequence\":1e3") == .damaged)
        #expect(try code("\"label\":\"main\"", "\"label\":\"a\\nb\"") == .damaged)
        #expect(try code("\"label\":\"main\"", "\"label\":\"\"") == .damaged)
        #expect(try code("Z\"", "\"") == .damaged)
        #expect(try code("\"wrapped\":\"", "\"wrapped\":\"00") == .damaged)
        #expect(try code("\"nonce\":\"", "\"nonce\":\"A") == .damaged)
        #expect(try code("\"salt\":\"", "\"salt\":7,\"x\":\"") == .damaged)
        #expect(Self.code("", Self.keyFile) == .damaged)
        #expect(Self.code("[]", Self.keyFile) == .damaged)
    }

    @Test("a label that could be mistaken for something else is refused")
    func labels() {
        for label in ["", "a b", "a\nb", "ä", String(repeating: "a", count: 256)] {
            #expect(
                errorOf { () throws(KedgeError) in try Self.slot(Self.keyFile, label: label) }?.code == .configuration)
        }
    }

    @Test("a key file is one line of 64 hexadecimal digits")
    func keyFileText() throws {
        let digits = Fixture.noise(32).hex
        for text in [digits, digits + "\n", digits.uppercased() + "\n"] {
            let secret = try KeyEncryptionSecret(parsingKeyFile: Array(text.utf8), what: "key file \"k\"")
            #expect(secret.keyFileText == Array("\(digits)\n".utf8))
        }
        for text in [
            "", "\n", digits + "\n\n", digits + "0", String(digits.dropLast()), digits.dropLast() + "g", digits + " ",
        ] {
            let error = errorOf { () throws(KedgeError) in
                try KeyEncryptionSecret(parsingKeyFile: Array(text.utf8), what: "key file \"k\"")
            }
            #expect(error?.code == .configuration)
            #expect(error.map { !"\($0)".contains(digits.prefix(20)) } == true, "no secret in an error")
        }
    }

    @Test("a passphrase loses only its final newline, and is not empty")
    func passphraseText() throws {
        for (text, expected) in [("a b", "a b"), ("a b\n", "a b"), (" a \n\n", " a \n")] {
            let secret = try KeyEncryptionSecret(parsingPassphrase: Array(text.utf8), what: "passphrase file \"p\"")
            guard case .passphrase(let secret) = secret else {
                Issue.record("not a passphrase")
                continue
            }
            #expect(secret.bytes == Array(expected.utf8))
        }
        for text in ["", "\n"] {
            #expect(
                errorOf { () throws(KedgeError) in
                    try KeyEncryptionSecret(parsingPassphrase: Array(text.utf8), what: "passphrase file \"p\"")
                }?.code == .configuration)
        }
    }

    @Test("new objects are sealed with the key of the highest sequence, on every host the same")
    func newestKey() throws {
        let random = SeededRandom(3)
        let keys = [1, 3, 2, 3].map { DataKey(sequence: $0, random: random) }
        let newest = max(keys[1].id, keys[3].id)
        #expect(try KeyRing(cipher: .aes256GCM, keys: keys).writingKey().id == newest)
        #expect(try KeyRing(cipher: .aes256GCM, keys: keys.reversed()).writingKey().id == newest)
    }
}

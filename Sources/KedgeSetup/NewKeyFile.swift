// Making a key file.

package import KedgeCodec
package import KedgeCore

/// A new key, and the file that is to hold it. Nothing is written before `write`.
package struct NewKeyFile: Sendable {
    package let path: RawPath
    package let secret: KeyEncryptionSecret
    private let text: [UInt8]

    /// A random key for a file at `path`. Nil where anything is there: that is left alone. Throws where that cannot be
    /// found out.
    package init?(at path: RawPath, random: any RandomSource) throws(KedgeError) {
        guard try !FileSystem.exists(path) else { return nil }
        let secret = KeyEncryptionSecret.newKeyFile(random: random)
        guard let text = secret.keyFileText else {
            throw KedgeError(.defect, "cannot make a key file", hint: "Please report this.")
        }
        self.path = path
        self.secret = secret
        self.text = text
    }

    /// Writes the file, mode 0600, durably. Throws `already-exists` where one has come in between, and what writing
    /// throws.
    package func write(random: any RandomSource) throws(KedgeError) {
        guard try DurableFile.write(text, to: path, mode: 0o600, random: random) == .created else {
            throw KedgeError(
                .alreadyExists, "could not write key file \"\(path)\": another one was made meanwhile",
                detail: "It was left as it is.", hint: "Run the command again: it then uses that file.")
        }
    }

    /// Takes the file back, for a key that nothing was made with. Throws what removing throws.
    package func remove() throws(KedgeError) { try FileSystem.removeFile(at: path) }
}

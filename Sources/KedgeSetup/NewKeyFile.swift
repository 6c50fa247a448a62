// Making a key file.

import KedgeCodec
package import KedgeCore

/// A new key file.
package enum NewKeyFile {
    /// Writes a new random key to `path`, mode 0600, durably. A file that exists is left alone. Throws what writing
    /// throws.
    package static func create(at path: RawPath, random: any RandomSource) throws(KedgeError) -> DurableFile.Outcome {
        guard try !FileSystem.exists(path) else { return .alreadyExists }
        guard let text = KeyEncryptionSecret.newKeyFile(random: random).keyFileText else {
            throw KedgeError(.defect, "cannot make a key file", hint: "Please report this.")
        }
        return try DurableFile.write(text, to: path, mode: 0o600, random: random)
    }
}

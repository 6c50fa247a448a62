// That the percentage of a sample is read as people write it, and nothing else is.

import KedgeTestSupport
import Testing

@testable import KedgeCommand

@Suite struct VerifyCommandTests {
    @Test(
        "a percentage is parts of a million",
        arguments: [
            ("5%", 50_000), ("0.5%", 5000), ("5", 50_000), ("99.9999%", 999_999), ("0.0001%", 1), ("12.25", 122_500),
        ])
    func percentages(_ text: String, _ parts: UInt32) {
        #expect(VerifyCommand.partsPerMillion(text) == parts)
    }

    @Test(
        "what is no part of the whole is refused",
        arguments: [
            "", "%", "0", "0%", "100%", "-1", "5 %", ".5", "5.", "1e1", "5%%", "0.00001%", "99999999999", "1.2.3",
            "\u{663}",
        ])
    func refused(_ text: String) {
        #expect(VerifyCommand.partsPerMillion(text) == nil)
    }
}

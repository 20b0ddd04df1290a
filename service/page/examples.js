// Texts of our own to try.

export const EXAMPLES = {
  praise: "A warm, funny film that never talks down to its audience.",
  mixed: "The plot makes no sense at all, and I would not change a single minute of it.",
  review:
    "I went in expecting very little. The trailer promises a chase, a twist and a tearful speech, and for "
    + "the first half hour that is what you get, in that order, shot in the colour of weak tea. Then the "
    + "two sisters finally sit down at the same kitchen table, and the film forgets its plot and starts to "
    + "listen to them. Nothing much is said. One peels an orange, the other counts the money twice, and in "
    + "that silence there is more history than in all the flashbacks before. From there on it hardly puts a "
    + "foot wrong: patient, generous and very funny, with two wonderful performances at its heart. The "
    + "score is a little loud and somebody should have cut the dream. But I laughed when they laughed, I "
    + "held my breath in the barn, and on the way home I rang my brother, which no thriller has ever made "
    + "me do. One of the loveliest films of the year.",
};

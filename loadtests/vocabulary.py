"""English words for generated texts: the small ones that every sentence repeats, and the others.

The others mix common words with rarer ones that a WordPiece tokenizer splits, so that a generated
text has about as many tokens a word as real ones do (about 1.2, its punctuation included).
"""

_FUNCTION = """
the a of and to is in it that as but with for its this film on an by be one not at from more has
about than so are all you most or like have will just too his out up no into what who if there her
he she they we i when was were been can could would some only even which their them while through
because between before after never always
"""

_CONTENT = """
movie story characters comedy time good much little funny drama life make way work best new bad
performances love director enough plot people see cast feel heart sense humor old acting screen big
feels watch audience great script minutes moments moving family world action real hard interesting
lot kind material nothing long picture entertaining worth fun fascinating watching half scenes
lives dull true seems tale actors human comes fans romantic without ending opening camera music
score dialogue voice lighting editing costumes scene chapter sequel remake original actor actress
writer producer studio theater ticket trailer season episode series thriller mystery romance
western horror musical documentary animation adventure fantasy detective killer stranger mother
father brother sister daughter son husband wife friend neighbor teacher soldier doctor lawyer
captain king queen child baby crowd city village island river mountain desert forest kitchen garden
window door street train airport hospital prison school church winter summer morning evening
midnight weekend holiday childhood memory dream secret promise mistake revenge betrayal courage
sorrow laughter silence anger jealousy hope patience wonder regret brilliant clever gentle honest
warm cold dark bright slow quick loud quiet simple tender clumsy boring lazy pointless empty
shallow tedious awful terrible dreadful hopeless annoying forgettable predictable tasteless
confused lifeless noisy cheap ugly silly stupid weak flat stale hollow wonderful charming beautiful
delightful superb splendid graceful witty lively fresh bold daring sincere touching powerful
memorable rewarding satisfying thoughtful stylish refreshing inspired believable convincing
surprising restless haunting playful melancholy absurd bizarre gloomy watched laughed cried smiled
slept walked waited expected promised delivered failed wasted wandered dragged stumbled collapsed
unfolded lingered shimmered whispered shouted recommended admired adored enjoyed hated despised
forgot remembered believed suspected discovered explained revealed avoided repeated borrowed
imitated rewrote adapted directed photographed narrated nearly barely hardly mostly truly simply
merely finally suddenly slowly quietly sadly happily surprisingly painfully gloriously effortlessly
remarkably occasionally deliberately carefully minute hour year decade century moment second finale
twist climax premise subplot cliché melodrama blockbuster cinematography screenplay soundtrack
choreography storytelling filmmaker moviegoers newcomers onlookers daydream heartbreak shipwreck
moonlight footsteps lighthouse understated overwrought overlong underwritten miscast unflinching
bittersweet lighthearted unintentionally mesmerizing exhilarating nerve-racking heavy-handed
paper-thin old-fashioned hand-drawn wide-eyed half-baked cringeworthy snoozefest tearjerker popcorn
slapstick deadpan
"""

FUNCTION_WORDS = tuple(_FUNCTION.split())
CONTENT_WORDS = tuple(_CONTENT.split())

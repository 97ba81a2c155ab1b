"""First and last names, from the locale lists of Faker, and the words among them that are more than names."""

import importlib
from dataclasses import dataclass
from functools import lru_cache

# Locales written in Latin, Greek and Cyrillic letters: other scripts have no capitals, and a name is only known by its capital here.
LOCALES = [
    "en",
    "de_LI",
    "de_LU",
    "fr_QC",
    "mk_MK",
    "ja_JP",  # its romanized names
    "en_GB",
    "en_IE",
    "en_IN",
    "en_KE",
    "en_NG",
    "en_NZ",
    "en_PK",
    "en_TH",
    "en_US",
    "de_AT",
    "de_CH",
    "de_DE",
    "fr_BE",
    "fr_CA",
    "fr_CH",
    "fr_DZ",
    "fr_FR",
    "es_AR",
    "es_CA",
    "es_CL",
    "es_CO",
    "es_ES",
    "es_MX",
    "it_IT",
    "pt_BR",
    "pt_PT",
    "nl_BE",
    "nl_NL",
    "da_DK",
    "sv_SE",
    "no_NO",
    "fi_FI",
    "is_IS",
    "et_EE",
    "lt_LT",
    "lv_LV",
    "pl_PL",
    "cs_CZ",
    "sk_SK",
    "sl_SI",
    "hr_HR",
    "hu_HU",
    "ro_RO",
    "tr_TR",
    "id_ID",
    "vi_VN",
    "ga_IE",
    "ig_NG",
    "yo_NG",
    "ha_NG",
    "tw_GH",
    "sw",
    "zu_ZA",
    "uz_UZ",
    "az_AZ",
    "el_GR",
    "ru_RU",
    "uk_UA",
    "bg_BG",
]
SHORTEST = 3  # letters: "Al", "Bo" and "Jo" are too much else


# Names of Britain, Ireland and other countries that Faker's lists lack.
MORE = (
    """
Ailsa Akiko Alasdair Aled Alun Angharad Anwen Babatunde Barnaby Branwen Carys Ceri Cerys Cressida Crispin Dafydd Deepak Demelza Desislava Digby Dilwyn
Dmytro Eilidh Eirlys Eleri Elspeth Emrys Esme Ewen Fenella Ffion Finlay Fionn Folake Gethin Glyn Gruffydd Gráinne Gurpreet Guto Gwenllian Gwilym
Harpreet Haruto Hermione Huw Hywel Ieuan Illtyd Inigo Iolo Islwyn Jago Jaspreet Jocasta Jolyon Jonty Kavita Keir Kerensa Lerato Llinos Llyr
Lowenna Lowri Lysander Mair Maisie Manpreet Mared Meinir Mererid Mhairi Morag Morwenna Mungo Murdo Myfanwy Mykola Nerys Nomsa Oisín Oksana Oleksandr
Oluwaseun Osian Owain Parisa Parminder Persephone Petroc Rafferty Rajesh Razvan Rhodri Ruaridh Róisín Sanjay Seojun Shirin Simran Sinéad Sioned Sipho
Siân Steffan Struan Sukhdeep Sunita Svitlana Takeshi Tamsin Tamzin Tegwen Temitope Tendai Thabo Tinashe Tomos Torquil Tudur Vikram Xanthe Xiaoming
Yaroslav Zanele Zsofia
"""
).split()


@dataclass(frozen=True)
class Names:
    """Names as they are written, with a capital. `first` and `last` may share some."""

    first: frozenset[str]
    last: frozenset[str]


@lru_cache(maxsize=1)
def names() -> Names:
    """All names of one word; of names of several words (`Maria Elena`, `De Wit`) each part of at least SHORTEST letters."""
    first: set[str] = set(MORE)
    last: set[str] = set()
    for locale in LOCALES:
        provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
        for attribute in dir(provider):
            plain = attribute.replace("romanized_", "")
            kind = first if "first_name" in plain else last if "last_name" in plain else None
            listed = getattr(provider, attribute)
            if kind is not None and isinstance(listed, tuple | list | dict):
                kind.update(part for name in listed for part in str(name).split())
    return Names(frozenset(filter(_is_name, first)), frozenset(filter(_is_name, last)))


def _is_name(word: str) -> bool:
    return len(word) >= SHORTEST and word[0].isupper() and not word.isupper() and "." not in word


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Names that are also words, places, months, peoples, firms or titles: alone they say nothing, before a last name they may be a first name.
AMBIGUOUS = _words(
    """ parts hyphen colón bill bills page pages week weeks handler forget sale sales hub pod line lines plan router cable signal account abbey ace acer ada add addison adelaide aden admiral africa alabama alaska alba alberta albion alexandria ally alma alpha alto amador amazon
amber america amethyst among amos angel angeles anise ann antonia apollo apple april aria arizona arch ari arlington armani art arthurs ash asia ashes aspen aston atlanta
atlas auburn audi august aura aurora austin autumn author avalon avenue avon azul azure babe baby bach baker bali ballard ban banks baptist bar bard barb barley baron barr
base basel basic basil bass bat battle bay beacon bean bear beat beau beck bee beer belle bell ben benson bent bergen berlin berry best beta bethany bethlehem bird
bishop bitten black blade blake blaze blessing bliss block blossom blue bogey bold bolt bonnie boss boston bourbon bow boy bradford bran branch brand brandy brave bread
breeze brent brick bridge bright bristol brit brittany bronze brook brooklyn brooks brown buck bud buddy buffy bull bunny burns bush buster butch butler cable cairo
cali cambridge camden can canada canal candy cannon canyon cap captain car care  carolina carry cart carter case casey cash cast castle cat cayenne cedar celestial cello
centre chad champ champion chance chaos charity charm chase chastity chelsea cherish cherry chester chi chief child china chip christ christian christmas church cinnamon
citizen city clan claret clarity clay clean clear clement cleveland cliff clinton close clover coast cole colon colonel colorado colt columbia columbus comfort commodore
common constant cook cool cooper copper coral cord corn cornell corner corona cotton council count country court courtney craft crane creed crete crew cross crow
croix cruise cruz crystal cuba cup cure curly cypress daily daisy dakota dale dallas damn dane danish dark darling dash data date dawn day dean dear deep del dell delta
denver derby desert desire destiny dev devon diamond dick diesel dim dina divine dixie doc dock doctor dodge doe doll dollar don dore dot dove dream drew drum dublin
duck duke dune dusty dutch each eagle earl early earnest earth east easter easy ebb echo eden edge edit egypt elder electra eli elite else elf ella ellis ember emerald
emir emit empire ena end england english ense era erie essence essex  eton eve even ever evening every evidence ezra fair fairy faith fall falcon fame fancy far farm
fares fate father favor feather fed feline fen fern field finn fire first fisher flame fleet fleming flint floor flora florence florida flower floyd  fond fonda ford forest
forever forrest forth fortune forum foster fox fran franc france frank  free freedom french friday friend frost fuller future gain gala gale galaxy game garden
gardener garland garner garnet garrison gas gate gauge gay gem gema gene general genesis geneva genius gentle georgia georgian german germany gift gil gilbert ginger
glad glass glen global glory gold golden good gorge governor grace grand grant granville graves gray great greco green greet  grey grill guide gulf gun guy ham hale hall halley
hampton hand handy happy hard hardy harm harmony harper harsh hart harvey harvest haven hawk hay haze hazel head heart heath heather heaven heavenly hector help hence
henna hero high hill hilton hind holiday holland holly hollow holy home honest honey honor honour hope horn horse house houston hudson  hull human hung hunt
hunter ice icy idea ike imo ina india indian indiana indie indigo indy infant innocent ion iowa ira iran iraq ireland irish iron isis island israel italy its ivory ivy jack
jackson  jagger jail jam jan january japan jasmine  java jazz  jersey jerusalem jesus jet jewel job joke jolly jordan journey joy jubilee jude judge judo
 july june jungle junior juno jupiter justice justin kale kansas karma keen kelvin  kent kentucky kenya key khan kia kick kid kin kind king kingdom kingston
kit kite kitty kiwi koda lace lad lady lake lamb lance land lane large lark laser last later laurel lavender law  lawyer lea leader leaf leafy lean leap legacy
legend lemon leo less liberty lie lien lies life light lightning like lilac lily lima lime limit lin lincoln line link lion list little lively living loan lodge log london lone
long lord lore los lot lotus  louisiana love lovely low loyal luck lucky luna lush luster lux luz lyon lyric mac machine madden made madison mae magic magnolia maid mail
main maine major malaysia male mall malt malta man manila manly manor many maple mar marble march mare marine mariner mark market marlboro marriott marry mars marsh
marshal marshall martial marvel  maryland mash mason master mat match mate math maths mats matter maverick max maximum may mayor mead meadow medal media melbourne mellow
melody memory memphis men mentor mercedes mercer merchant mercury mercy merit merlin merry mesa messiah meta metro miami michigan mild mile miles mill miller million mills mina
mine miner ming minister mink minor mint miracle miss missouri mist misty mix mobile mode modern modest monaco monday money monk monroe montana montreal moon moor moral
more morgan morning morocco moses moss most mother mound mountain muslim must mystery nail nairobi nan nation nature navy nazi near neat need nest neva nevada new newt newton
nice nil nile nine ninja nissan noble nobel noel noon norm normal norman north norway norwood nova novel novella november number oak ocean october octave odd odds
ode odessa odin office oil old olive olympia olympic omega omar only open opal ora oral orange orchid order oregon oriental orlando osaka other otter our ova over owe own oxford
pace pacific page palm palma pan panama pansy paper paradise paris park parker party passion pastor pat patch path patience patriot paw paz peace peak pearl peer peg pen pence
penny people pepper per perfect perry persia persian peru petal phoenix philippine philadelphia phil philippe piano pier pike pilot pine pink pinto piper pitt place plain planet
plato pleasant please plum poem poet point poland polish pool poor pop pope poppy port porter power praise prat precious premier presley press preston price pride priest
prima prime primrose prince princess princeton prize promise prosper proud prudence puck pure purity purple put quality quebec queen quest quick quiet quill rabbit radar rage
raid rain rainbow raleigh ram ramadan rand range ranger ransom rare raven ray real reality reason rebel red reed reef reese regal regent region reign rein rena reno republic
rest rev rex rey rhapsody rhine rhythm rica rice rich richer richmond ridge right rim ring rio rise river riviera road roar rob robin rock rocket rocky rod rogue roll roma roman
romance rome romeo rook room roman root rose rosemary ross round rover rowan royal ruby rule rune rush russia rust rusty rye saber sable sad safari saffron saga sage sahara said
sail saint salem salmon sam same san sand sandy santa santiago santo sapphire saturday saturn savanna savannah saver saxon say scar scarlet scene school scot scotland
scout sea seal season sebastian second secret see seed seek senator seoul serene serenity serge server seven shade shadow shah shanghai share sharp she shell sheridan
sherry shine ship shore short sid sierra silence silk silver simple sin sincere sing singer sister six skip sky slim small smart smile smith snow so soda sol solar sole son sonata
song sonnet soon soul south sovereign spain spark special spencer spirit spring square stan stanford star starling state steel stella sterling stern steward stone storm story
stormy strand street strong student su sugar sultan summer summit sun sunday sunny sunset sunshine superior sure surf swan sweden sweet swift swiss sydney sylvan symphony tab
table tad tai taj talent tall tamar tan tank tanner tape tara tax tea teal ted temple ten tennessee terra tesla test texas than thanks the thing think third thor thunder
thursday ties tiger till tim time tin tiny titan titus tod today token toledo ton tone top tor tore toronto touch tour town toy trace trade traveler treasure tree trend tri tribe trinity trip triumph
trooper troy true trust truth tsar tuesday tulip tulsa turkey turner turquoise twin two ukraine umber uncle unique unit unity university unknown unnamed uno urban urn us utah vail
val vale valencia valentine valiant valid valley value valves van vance vanilla vanity vat vega vegas velvet venice venus ver vera verity vermont versa verse vesper vet
victor victoria victorian victory vienna view viking villa village vine vintage viola violet virgin virginia virgo virtue visa vision vista vivid voice volga volt wage wait wales walker
wall war ward warm warsaw warwick wash washington water wave way wayland wealth web wednesday week well wellington wells welsh were west western whale what wheeler
which white who whole wild wilder will willow win wind window windsor windy wine wing winner winter winston wisdom wise wish wit with wolf wonder wood woods woody word work
world worth wren xerox yale yaw year yellow yes yoga york young youth yuan zen zenith zero zeta zion zone
lora darwin sha nat gemma roberta sine pascal hilbert wolfram theta maxwell len gregorian aud azores burke burton byron caesar cameron carson casper chandler charlotte clark clarke cohen collins crawford dalton davis dawson dickens dina duncan durham evans franklin
garfield gibson gordon gore graham hamilton harding harrison hastings hayes henderson holmes howard hubbard hughes irwin jefferson jenner johnson jones kane lambert lansing lester
lewis livingstone lloyd lopez martinez marx  mitchell morris morrison murphy murray nelson nixon obama owen owens palmer patterson perez peterson powell pratt reagan
reynolds richardson robinson rodriguez rogers roosevelt russell rutherford sanders shaw sherman simpson stewart sullivan taylor thompson thomson truman tucker wagner wallace warren watson watt
webster wellington williams wilson wright duma sal ali sur ars bil con dos las mas nos par pas por que sans tous vers agora bon dom era mesa sera tal ties tri uni vid var env int
arg args func self init main java perl ruby rust swift dart julia flask django jenkins apache kafka siri alexa cortana watson gemini claude bard copilot llama marvel shell
lots asks also cares company contractor block string object value model method function return import error warning note notes null parameter parameters example file files input output
tage bett oma lage mal elle
alene alleen aller amare ami amico amie armas aun aus bien boven buena campo ceci cem cena cielo comment contra corda dalla dans dar darin das
dass davor delle dessa deviner die durant día ebbe ebbi eben egli eres essi este estes fem font francia hanno hoy jakis karta kort laken lato leider
les mayo mich mille minhas mir moet moj mont mucha musi mías nas nel nell nelle nello nim nur olie oni oto para parís paye pela poza quero redden rok
salud sarai schon sien sim soi steen sus tak tali tierra til uit veer vernice vide ville vino volta vorm vos wel werd zak zona
""".replace("\n", " ")
)
# Those of them with which people sign and by which they are spoken to: alone on the last line of a message they are hardly the word or place.
GIVEN = _words(
    """
abbey ada addison adelaide alba alexa ali ally alma amber amos ann antonia ari aurora austin barb basil beau belle ben benson bethany bill blake
bonnie brent brit brittany butch byron cameron carolina carson carter casey casper chad chandler charlotte chelsea chester clark claude clay clement
cliff clinton cole cooper courtney crystal daisy dale dalton dane dawn dawson dean devon dina dixie dom don dot drew duncan earl eli ella elle ellis
emir eve ezra fern finn flora florence floyd ford forrest fran frank franklin gemma gene georgia gibson gil gilbert ginger glen gordon grace graham
grant granville guy hamilton harper harrison harvey hazel heath heather hector holly howard hudson hunter ike ina ira irwin ivy jack jackson jan
jasmine jordan jude julia justin kane kelvin kia kit kitty lance laurel lea len leo lester lewis lily lloyd luna madison mae mark marshall mason mat
max maxwell mercedes merlin miles mina mitchell monroe morgan morris moses murphy murray nan nat nelson newton noel norman olive omar owen palmer
parker pascal pat pearl penny perry peterson phil philippe piper poppy porter presley preston ray reagan reed reese rex rich rob roberta robin
robinson rocky rod roman rose rosemary ross rowan ruby russell sam sandy savanna savannah sebastian sheridan sherman sherry sid spencer stan stella
sterling stewart sydney sylvan tad taj tamar tanner tara taylor ted tim titus tod troy truman tucker val valentine vance vera victor victoria viola
violet virginia wallace warren wayland will willow wilson winston wolfram
""".replace("\n", " ")
)
# Names that are frequent words of other languages, mostly articles and pronouns: no names in a sentence of these (Dutch `Dan krijgt u een
# nieuwe`: then). Those that hardly anybody bears are among `AMBIGUOUS`.
ELSEWHERE = {
    "alla": ("it", "sv"), "allen": ("nl", "de"), "anders": ("nl", "de"), "andra": ("sv",), "andre": ("da",), "bara": ("sv",),
    "blanca": ("es",), "claire": ("fr",), "dan": ("nl", "es"), "della": ("it",), "domingo": ("es", "pt"), "donna": ("it",),
    "ela": ("pt",), "elke": ("nl",), "elva": ("sv",), "essa": ("pt", "it"), "felice": ("it",), "fleur": ("fr",), "goda": ("sv",),
    "grazia": ("it",), "hans": ("sv", "da"), "inga": ("sv",), "inna": ("pl",), "kara": ("pl",), "lilla": ("sv",), "lina": ("pl",),
    "marcia": ("it",), "massimo": ("it",), "mia": ("it", "es"), "mía": ("es",), "mila": ("it",), "mira": ("es",), "máximo": ("es", "pt"),
    "nella": ("it",), "nessa": ("pt",), "nia": ("pl",), "norma": ("es", "it", "pt", "pl"), "ona": ("pl",), "otto": ("it",), "pierre": ("fr",),
    "romano": ("it",), "rosa": ("es", "it", "pt"), "sara": ("it",), "sean": ("es",), "segundo": ("es", "pt"), "sina": ("sv",), "sue": ("it",),
    "ned": ("da",), "demi": ("fr",), "caro": ("it",), "che": ("it",), "mai": ("it",), "signe": ("fr",), "deja": ("es",), "abril": ("es",),
    "vero": ("it",),
    "von": ("de",), "dai": ("it",), "gia": ("it",), "una": ("es", "it"), "bas": ("fr",), "cas": ("fr",), "dag": ("nl", "sv", "da"), "sem": ("pt",),
    "nam": ("pl",), "alli": ("es",), "tre": ("it", "sv"), "mio": ("it",), "mie": ("it",), "cher": ("fr",), "luce": ("it",), "monte": ("it",),
    "pelle": ("it",), "klas": ("nl",), "ale": ("pl",), "ani": ("pl",), "jaki": ("pl",), "stein": ("de",), "berg": ("de", "nl"),
    "mari": ("fr",), "sommer": ("de", "da"), "anni": ("it",), "toma": ("es",), "uma": ("pt",), "oba": ("pl",),
    "ute": ("sv",), "vara": ("sv",), "vida": ("es", "pt"), "vita": ("it",), "uwe": ("nl",),
}  # fmt: skip
# By language the frequent words that tell it: none of another language here is among them but where languages share it.
TELLS = {
    "en": _words("the and of to that for with you your it was have are this we our not if or as by from they he she what his her who"),
    "fr": _words(
        "le la les des du un une et est que qui pour dans vous nous pas je ne sur avec mon ma votre vos au aux ce cette sont il sera"
    ),
    "es": _words("el la los las un una y es que por para con su mi de del lo se le al más usted ustedes está son como"),
    "it": _words("il lo la gli un una è che per con non si di della dei del al nel sono i le da ho ha più ci mi alla anche"),
    "pt": _words("o os um uma é que por para com não se seu sua do da dos das em ao você são está mais foi"),
    "nl": _words("de het een en niet van u uw je wij ik dat voor met op aan bij wordt ook nog naar"),
    "de": _words("der das und ist nicht ein eine für mit auf sie ich wir zu den von dem im bei sind auch werden"),
    "pl": _words("i w z nie się jest do po od dla był pan pani proszę oraz przez"),
    "sv": _words("och att det som en är på inte för med jag ett den av du ni kan har om till"),
    "da": _words("og at det er på ikke til med jeg en et den af du har kan vi om"),
}
# Words that no name begins with or goes on with: forms of address, greetings, and the nouns that make a place or a firm of a name.
NOT_NAMES = _words(
    """ sir madam customer customers team all everyone everybody colleague colleagues friend friends editor support hiring manager member members user users guest
student students parent parents reader readers client clients valued resident applicant admin santa diary god lord there folks guys agent assistant hello hi hey dear good thanks thank
regards sincerely best yours cheers love warm kind the a an and or but if in on at of for from to with by is are was were be not no yes i you he she it we they this that these
those what who when where why how which our your my his her their its please also just very so then than too monday tuesday wednesday thursday friday saturday sunday january february
march april may june july august september october november december mr mrs ms miss mx dr prof professor president king queen prince princess pope saint st english american
british french german italian spanish polish russian chinese japanese indian canadian australian dutch irish scottish welsh mexican brazilian christian muslim jewish catholic hindu
buddhist european african asian latino black white sorry glad happy sure afraid aware able ready here now back still going trying looking writing new old okay ok bot ai name
address phone email date company order number id none null n/a unknown anonymous type string required optional true false int float bool text value title subject re fw sent first last
full middle user username password account file path class def function return import module package version author license copyright error warning info debug note
sie dann davon einer esta esa pero hasta ante durante nada eller""".replace("\n", " ")
)
NAMED_PLACES = frozenset(
    {"café", "cafe", "restaurant", "bistro", "hotel", "pub", "bar", "villa", "lake", "mount", "fort", "port", "cape"}
)  # before a name
MAKES_A_PLACE = _words(
    """ inc inc. ltd llc plc corp corporation co company gmbh ag sa group holdings partners associates bank university college school academy institute hospital clinic church cathedral
museum library theatre theater stadium arena park street st. avenue ave road rd lane drive boulevard blvd square bridge airport station county city town village island islands lake river mountain
mount valley beach bay hotel inn restaurant cafe bar hall house center centre tower building award awards prize cup trophy championship open league foundation trust society association
records band orchestra films pictures studios motors airlines airways systems technologies software press news times post journal magazine act law theorem algorithm distribution process method
effect principle paradox equation test scale index syndrome disease jr. series language isles sea ocean desert province state republic kingdom empire dynasty lemma conjecture postulate theory inequality formula identity
transform matrix tensor polynomial polynomials kernel filter window plot chart diagram spectrogram spectrograms coefficient correlation estimator metric
model models layer supplement extension""".replace("\n", " ")
)
# After a name, with or without 's, they make it a thing's: `Bertrand's postulate`, `the Ricci tensor`.
EPONYMS = frozenset(
    "theorem theorems lemma conjecture postulate hypothesis inequality equation equations formula algorithm polynomial polynomials tensor "
    "matrix matrices transform spectrogram spectrograms distribution integral algebra correlation coefficient paradox".split()
)
